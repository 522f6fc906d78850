// Enough of CUDA to run the kernels of one source file on a CPU, block after block.
//
// Each thread of a block is a coroutine that runs up to its next barrier; between barriers the threads take turns in an
// order that changes every time, and shared memory starts out as rubbish. So a missing barrier, an index outside a
// block's share or an entry read before it is written shows up as a wrong answer, as it may on a device.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __shared__ static __attribute__((section("shared_memory")))

using std::exp;
using std::expm1;
using std::fabs;
using std::fma;
using std::fmax;
using std::fmin;
using std::log;
using std::sqrt;

struct Position {
    unsigned x;
};

Position threadIdx, blockIdx, blockDim;

template <class To, class From>
inline To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof x);
    return y;
}

inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return same_bits<double>(x); }

template <class T>
inline void atomicMax(T* place, T x) {
    *place = *place < x ? x : *place;
}

inline void atomicAdd(int* place, int x) { *place += x; }

extern char __start_shared_memory[], __stop_shared_memory[];

struct Thread {
    ucontext_t entry;
    jmp_buf spot;
    std::vector<char> stack = std::vector<char>(65536);
    bool started, done;
};

jmp_buf scheduler;
Thread* running;
void (*block_body)(void*);
void* block_arguments;

// Contexts start threads, jumps switch between them: a switch of contexts costs a system call.
void resume(Thread& thread) {
    running = &thread;
    if (_setjmp(scheduler) == 0) {
        if (thread.started) {
            _longjmp(thread.spot, 1);
        }
        thread.started = true;
        setcontext(&thread.entry);
    }
}

void __syncthreads() {
    if (_setjmp(running->spot) == 0) {
        _longjmp(scheduler, 1);
    }
}

void run_thread() {
    block_body(block_arguments);
    running->done = true;
    _longjmp(scheduler, 1);
}

// Run one block; false if some threads end while others wait at a barrier.
bool run_block(std::vector<Thread>& threads, unsigned& seed) {
    std::memset(__start_shared_memory, 0xab, __stop_shared_memory - __start_shared_memory);
    const unsigned count = blockDim.x;
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        thread.started = thread.done = false;
        getcontext(&thread.entry);
        thread.entry.uc_stack.ss_sp = thread.stack.data();
        thread.entry.uc_stack.ss_size = thread.stack.size();
        thread.entry.uc_link = nullptr;
        makecontext(&thread.entry, run_thread, 0);
    }
    for (unsigned finished = 0; finished == 0;) {
        seed = seed * 1664525u + 1013904223u;
        const unsigned start = seed >> 8, step = seed >> 16 | 1;  // odd: every thread of a power of two once
        for (unsigned turn = 0; turn < count; ++turn) {
            threadIdx.x = (start + turn * step) % count;
            resume(threads[threadIdx.x]);
            finished += threads[threadIdx.x].done;
        }
        if (finished != 0 && finished != count) {
            return false;
        }
    }
    return true;
}

template <class... Parameters>
constexpr int parameters_of(void (*)(Parameters...)) {
    return sizeof...(Parameters);
}

// Run a kernel on pointers to its arguments; 0 if all went well.
template <class... Parameters>
int launch(void (*kernel)(Parameters...), unsigned blocks, unsigned count, void** arguments) {
    static unsigned seed = 1;
    static std::vector<Thread> threads;
    if (count & (count - 1)) {
        return 2;
    }
    if (threads.size() < count) {
        threads.resize(count);
    }
    using All = std::tuple<void (*)(Parameters...), void**>;
    All all{kernel, arguments};
    block_arguments = &all;
    block_body = [](void* opaque) {
        auto [function, values] = *static_cast<All*>(opaque);
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            function(*static_cast<Parameters*>(values[I])...);
        }(std::index_sequence_for<Parameters...>{});
    };
    blockDim.x = count;
#ifdef __SSE__
    const unsigned mode = _mm_getcsr();
    if (FLUSH) {
        _mm_setcsr(mode | 0x8040);  // subnormals are zero, as CuPy has float32 compiled; double has no such mode there
    }
#endif
    int failed = 0;
    for (blockIdx.x = 0; blockIdx.x < blocks && !failed; ++blockIdx.x) {
        failed = !run_block(threads, seed);
    }
#ifdef __SSE__
    _mm_setcsr(mode);
#endif
    return failed;
}
