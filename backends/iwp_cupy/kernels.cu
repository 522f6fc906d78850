// Magnitude of tokens (equation 10) and algorithm 1 in CUDA.
//
// FIRST and SECOND name the element types of two arrays of tokens: keys and values for the magnitude, the two factors
// of a similarity for algorithm 1. Both are Half, float or double. Everything else is computed in Real.
//
// Samples of a batch are parts of a grid. A sample of fewer tokens than the longest has its last one again behind it
// (`real` says where they are in memory): such places are computed like others, and never chosen.
//
// No header is needed, so that NVRTC compiles this wherever a driver runs. Sums add up in an order that no position
// changes, and products are rounded alike everywhere (`fma` is written out, contraction is off): identical tokens get
// identical numbers. CuPy always flushes float32 subnormals to zero; nothing here relies on them.

struct Half {
    unsigned short bits;
};

// Widening by integers: as a float32 product a subnormal half would be flushed.
__device__ inline float widened(Half x) {
    const unsigned size = x.bits & 0x7fffu;
    const unsigned rebias = size >= 0x7c00u ? 224u << 23 : 112u << 23;  // infinity and NaN stay what they are
    const float positive = size < 0x0400u ? size * 0x1p-24f : __uint_as_float((size << 13) + rebias);
    return x.bits & 0x8000u ? -positive : positive;
}

__device__ inline float widened(float x) { return x; }

__device__ inline double widened(double x) { return x; }

using Real = decltype(widened(FIRST{}) + widened(SECOND{}));

__device__ inline unsigned as_bits(float x) { return __float_as_uint(x); }

__device__ inline unsigned long long as_bits(double x) { return __double_as_longlong(x); }

__device__ inline float as_real(unsigned bits) { return __uint_as_float(bits); }

__device__ inline double as_real(unsigned long long bits) { return __longlong_as_double(bits); }

using Bits = decltype(as_bits(Real{}));

// Tokens of a batch, (samples, heads, tokens, width), as arguments of a kernel; strides count elements.
#define TOKENS(T, name) \
    const T *name, long long name##_sample, long long name##_head, long long name##_token, long long name##_channel, \
        long long name##_width

#define SAMPLE_OF(name, inverse_norms, heads) \
    {name + sample * name##_sample, name##_head, name##_token, name##_channel, int(name##_width), \
     real ? real + sample * tokens : nullptr, inverse_norms ? inverse_norms + sample * heads * tokens : nullptr, tokens}

// Tokens of one sample, (heads, tokens, width), with the rows of those that are real. Cosines carry 1 / norm.
template <class T>
struct Tokens {
    const T* data;
    long long head_stride, token_stride, channel_stride;
    int width;
    const int* real;
    const Real* inverse_norms;
    long long tokens;

    __device__ Real at(int head, int token, int channel) const {
        const long long row = real ? real[token] : token;
        return widened(data[head * head_stride + row * token_stride + channel * channel_stride]);
    }

    __device__ Real scale(int head, int token) const {
        return inverse_norms && token >= 0 ? inverse_norms[head * tokens + token] : Real(1);
    }
};

constexpr int DEPTH = 16;  // channels in shared memory at a time

// ---------------------------------------------------------------------------------------------------------- magnitude
// One thread a token, in double: products of hundreds leave float32 too few digits after the point, and this part
// waits for memory, not for arithmetic.

constexpr int LANES = 128;   // tokens, and threads, a block
constexpr int QUERIES = 8;   // queries scored in one pass over the keys

using Strip = Real[DEPTH][LANES + 1];

// Call visit(channel, entry) for all channels of this thread's token; all threads of a block call it together.
template <class T, class Visit>
__device__ void each_channel(Strip& strip, const Tokens<T>& x, int head, int first, Visit visit) {
    for (int begin = 0; begin < x.width; begin += DEPTH) {
        __syncthreads();  // the strip may still be read
        for (int i = threadIdx.x; i < DEPTH * LANES; i += LANES) {
            const int channel = begin + i % DEPTH, lane = i / DEPTH;
            const bool inside = channel < x.width && first + lane < x.tokens;
            strip[i % DEPTH][lane] = inside ? x.at(head, first + lane, channel) : Real(0);
        }
        __syncthreads();
        for (int depth = 0; depth < DEPTH && begin + depth < x.width; ++depth) {
            visit(begin + depth, double(strip[depth][threadIdx.x]));
        }
    }
}

// Euclidean norm whose squares neither overflow nor vanish: very large and very small entries add up on their own.
struct Norm {
    double large = 0, middle = 0, small = 0;

    __device__ void add(double x) {
        const double size = fabs(x);
        if (size > 0x1p400) {
            large = fma(size * 0x1p-600, size * 0x1p-600, large);
        } else if (size < 0x1p-400) {
            small = fma(size * 0x1p600, size * 0x1p600, small);
        } else {
            middle = fma(size, size, middle);
        }
    }

    __device__ double logarithm() const {
        constexpr double shift = 600 * 0.69314718055994530942;
        if (large > 0) {
            return 0.5 * log(large + middle * 0x1p-600 * 0x1p-600) + shift;
        }
        return middle > 0 ? 0.5 * log(middle + small * 0x1p-600 * 0x1p-600) : 0.5 * log(small) - shift;
    }
};

template <class T>
__device__ double log_norm(Strip& strip, const Tokens<T>& x, int head, int first) {
    Norm norm;
    each_channel(strip, x, head, first, [&](int, double entry) { norm.add(entry); });
    return norm.logarithm();
}

enum KeyPart { NOTHING, LENGTH, FEATURE };  // log ||k|| or log ||phi(k)|| of the exponential kernel

// Log scores of table 1, (samples, query heads, tokens), or (samples, heads, tokens) where `queries` is null.
// Grid: samples x heads x strips.
extern "C" __global__ void __launch_bounds__(LANES) score_heads(
    TOKENS(FIRST, keys), TOKENS(SECOND, values), const int* real, const double* queries, long long heads,
    long long group, long long tokens, long long key_part, long long with_values, long long linear, double* scores) {
    __shared__ Strip strip;
    const int strips = (tokens + LANES - 1) / LANES;
    const long long line = blockIdx.x / strips, sample = line / heads;
    const int head = line % heads, first = blockIdx.x % strips * LANES, token = first + threadIdx.x;
    const int width = keys_width;
    const Real* const none = nullptr;
    const Tokens<FIRST> k SAMPLE_OF(keys, none, heads);
    const Tokens<SECOND> v SAMPLE_OF(values, none, heads);

    double base = with_values ? log_norm(strip, v, head, first) : 0;
    if (key_part == LENGTH) {
        base += log_norm(strip, k, head, first);
    } else if (key_part == FEATURE) {
        double squares = 0;
        each_channel(strip, k, head, first, [&](int, double entry) { squares = fma(entry, entry, squares); });
        base += squares / (2 * sqrt(double(width)));
    }
    if (!queries) {
        if (token < tokens) {
            scores[line * tokens + token] = base;
        }
        return;
    }
    for (int start = 0; start < group; start += QUERIES) {
        const int count = group - start < QUERIES ? group - start : QUERIES;
        const double* const query = queries + (line * group + start) * width;
        double products[QUERIES] = {};
        each_channel(strip, k, head, first, [&](int channel, double entry) {
#pragma unroll
            for (int i = 0; i < QUERIES; ++i) {
                if (i < count) {
                    products[i] = fma(entry, query[i * width + channel], products[i]);
                }
            }
        });
#pragma unroll
        for (int i = 0; i < QUERIES; ++i) {
            if (i < count && token < tokens) {
                const double kernel = linear ? log(fabs(products[i])) : products[i] / sqrt(double(width));
                scores[(line * group + start + i) * tokens + token] = kernel + base;
            }
        }
    }
}

constexpr int SUMMERS = 256;

// Log of the sum of each head's scores over the real tokens; 0 for a head of zeros, which stays one.
// Grid: heads of all samples.
extern "C" __global__ void __launch_bounds__(SUMMERS) sum_heads(
    const double* scores, const int* counts, long long heads, long long tokens, double* totals) {
    __shared__ double parts[SUMMERS];
    const double* const row = scores + blockIdx.x * tokens;
    const int lane = threadIdx.x, own = counts[blockIdx.x / heads];
    double top = row[0];
    for (int i = lane; i < own; i += SUMMERS) {
        top = fmax(top, row[i]);
    }
    parts[lane] = top;
    for (int half = SUMMERS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            parts[lane] = fmax(parts[lane], parts[lane + half]);
        }
    }
    __syncthreads();
    top = parts[0];
    __syncthreads();
    double sum = 0;
    for (int i = lane; i < own; i += SUMMERS) {
        sum += row[i] == top ? 1 : exp(row[i] - top);  // also where all are -inf
    }
    parts[lane] = sum;
    for (int half = SUMMERS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            parts[lane] += parts[lane + half];
        }
    }
    if (lane == 0) {
        totals[blockIdx.x] = log(0.0) < top ? top + log(parts[0]) : 0;
    }
}

// Log of the sum over heads, each divided by its total where `totals` is not null. One thread a token of all samples.
extern "C" __global__ void pool_heads(
    const double* scores, const double* totals, long long samples, long long heads, long long tokens, double* pooled) {
    const long long place = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (place >= samples * tokens) {
        return;
    }
    const long long line = place / tokens * heads, token = place % tokens;
    double top = log(0.0), sum = 0;
    for (int pass = 0; pass < 2; ++pass) {
        for (int head = 0; head < heads; ++head) {
            const double score = scores[(line + head) * tokens + token] - (totals ? totals[line + head] : 0);
            if (pass == 0) {
                top = fmax(top, score);
            } else {
                sum += score == top ? 1 : exp(score - top);
            }
        }
    }
    pooled[place] = top + log(sum);
}

// Log of exp(pooled) scaled to [0, 1] by a sample's least and largest entry. One thread a token of all samples.
extern "C" __global__ void scale_scores(
    const double* pooled, const double* lowest, const double* highest, long long samples, long long tokens,
    Real* scaled) {
    const long long place = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (place >= samples * tokens) {
        return;
    }
    const double score = pooled[place], low = lowest[place / tokens], high = highest[place / tokens];
    double result = 0;
    if (low < high) {
        const double span = high + log(-expm1(low - high));
        result = score > low ? fmin(score + log(-expm1(low - score)) - span, 0.0) : log(0.0);
    }
    scaled[place] = result;
}

// -------------------------------------------------------------------------------------------------------- algorithm 1

// 1 / norm of each token of each head, finite also where the norm is 0. Grid: samples x heads x strips.
extern "C" __global__ void __launch_bounds__(LANES) invert_norms(
    TOKENS(SECOND, data), const int* real, long long heads, long long tokens, Real* inverse_norms) {
    __shared__ Strip strip;
    const int strips = (tokens + LANES - 1) / LANES;
    const long long line = blockIdx.x / strips, sample = line / heads;
    const int head = line % heads, first = blockIdx.x % strips * LANES, token = first + threadIdx.x;
    const Real* const none = nullptr;
    const Tokens<SECOND> x SAMPLE_OF(data, none, heads);
    const double norm = log_norm(strip, x, head, first);
    if (token < tokens) {
        constexpr double most = sizeof(Real) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
        inverse_norms[line * tokens + token] = fmin(exp(-norm), most);
    }
}

// Order of scores as integers. -0 would rank below 0, but no sum of a score and a penalty's log(1) = 0 is -0.
__device__ inline Bits rank_of(Real score) {
    constexpr Bits sign = Bits(1) << (8 * sizeof(Bits) - 1);
    const Bits bits = as_bits(score);
    return bits & sign ? ~bits : bits | sign;
}

constexpr int CHOOSERS = 1024;
constexpr int DIGITS = 256;
constexpr int COPIES = 8;  // of the histogram: scores share their leading digits, and adding to one address takes turns

// Apply the last chunk's penalty to the candidates, choose the `size` best as the next chunk, and list the others.
//
// `candidates` and `rest` ascend; `most` holds each candidate's largest duplication with the last chunk, and is
// cleared. The chunk goes, ascending, to chosen[taken...], with `taken` beside each token. A sample that wants fewer
// than `size` more takes those, and none if it wants none. Grid: samples.
extern "C" __global__ void __launch_bounds__(CHOOSERS) choose_chunk(
    Real* scores, Bits* most, const int* candidates, int* rest, const int* counts, const int* wanted, long long tokens,
    long long room, long long size, double penalty, double least, long long exponent, long long taken,
    long long* chosen, int* chunks) {
    __shared__ int histograms[COPIES][DIGITS];
    __shared__ int histogram[DIGITS];
    __shared__ int digit, needed;
    __shared__ unsigned long long scan[CHOOSERS];
    const int sample = blockIdx.x, lane = threadIdx.x, count = counts[sample] - taken;
    if (wanted[sample] <= taken) {
        return;
    }
    size = size < wanted[sample] - taken ? size : wanted[sample] - taken;
    scores += sample * tokens;
    most += sample * tokens;
    candidates += sample * tokens;
    rest += sample * tokens;
    chosen += sample * room;
    chunks += sample * room;

    for (int i = lane; i < count; i += CHOOSERS) {
        const int token = candidates[i];
        const Real shared = as_real(most[token]);
        const Real duplicated = exponent == 1 ? sqrt(shared) : shared;
        scores[token] += log(fmax(Real(least), Real(1) - Real(penalty) * duplicated));
        most[token] = 0;
    }

    // The rank of the last token chosen, digit by digit, and how many of those that tie with it are.
    Bits last = 0, known = 0;
    int ties = size;
    for (int shift = 8 * sizeof(Bits) - 8; shift >= 0; shift -= 8) {
        for (int i = lane; i < COPIES * DIGITS; i += CHOOSERS) {
            histograms[i / DIGITS][i % DIGITS] = 0;
        }
        __syncthreads();
        for (int i = lane; i < count; i += CHOOSERS) {
            const Bits rank = rank_of(scores[candidates[i]]);
            if ((rank & known) == last) {
                atomicAdd(&histograms[lane % COPIES][rank >> shift & (DIGITS - 1)], 1);
            }
        }
        __syncthreads();
        if (lane < DIGITS) {
            int sum = 0;
            for (int copy = 0; copy < COPIES; ++copy) {
                sum += histograms[copy][lane];
            }
            histogram[lane] = sum;
        }
        __syncthreads();
        if (lane < DIGITS) {
            int above = 0;
            for (int other = lane + 1; other < DIGITS; ++other) {
                above += histogram[other];
            }
            if (above < ties && ties <= above + histogram[lane]) {
                digit = lane;
                needed = ties - above;
            }
        }
        __syncthreads();
        last |= Bits(digit) << shift;
        known |= Bits(DIGITS - 1) << shift;
        ties = needed;
    }

    // Each thread deals with a run of candidates, so that all stay in ascending order.
    const int run = (count + CHOOSERS - 1) / CHOOSERS;
    const int begin = lane * run < count ? lane * run : count, end = begin + run < count ? begin + run : count;
    unsigned long long own = 0;  // how many rank above the last token chosen, and how many tie with it
    for (int i = begin; i < end; ++i) {
        const Bits rank = rank_of(scores[candidates[i]]);
        own += rank > last ? 1ull << 32 : rank == last;
    }
    scan[lane] = own;
    for (int step = 1; step < CHOOSERS; step *= 2) {
        __syncthreads();
        const unsigned long long before = lane >= step ? scan[lane - step] : 0;
        __syncthreads();
        scan[lane] += before;
    }
    const unsigned long long before = scan[lane] - own;
    int equal = int(before & 0xffffffff);
    int out = int(before >> 32) + (equal < ties ? equal : ties);
    for (int i = begin; i < end; ++i) {
        const int token = candidates[i];
        const Bits rank = rank_of(scores[token]);
        if (rank > last || (rank == last && equal < ties)) {
            chosen[taken + out] = token;
            chunks[taken + out] = taken;
            ++out;
        } else {
            rest[i - out] = token;
        }
        equal += rank == last;
    }
}

// Bring each chunk into the order of choice: by score, lower position first; `tokens` where no more were wanted.
// One thread for each of the `room` places of all samples.
extern "C" __global__ void order_chunks(
    const Real* scores, const long long* chosen, const int* chunks, const int* wanted, long long samples,
    long long tokens, long long room, long long* ordered) {
    const long long slot = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (slot >= samples * room) {
        return;
    }
    const long long sample = slot / room, i = slot % room, count = wanted[sample];
    scores += sample * tokens;
    chosen += sample * room;
    chunks += sample * room;
    ordered += sample * room;
    if (i >= count) {
        ordered[i] = tokens;
        return;
    }
    const int begin = chunks[i];
    const Bits rank = rank_of(scores[chosen[i]]);
    int place = begin;
    for (long long j = begin; j < count && chunks[j] == begin; ++j) {
        const Bits other = rank_of(scores[chosen[j]]);
        place += other > rank || (other == rank && j < i);
    }
    ordered[place] = chosen[i];
}

constexpr int SIDE = 16;     // a block has SIDE x SIDE threads
constexpr int ROWS_EACH = 4; // candidates a thread; a block compares SIDE * ROWS_EACH

template <int EACH>
struct alignas(EACH * sizeof(Real)) Pack {
    Real at[EACH];
};

template <int EACH>
using Tile = Pack<EACH>[DEPTH][SIDE + 1];

// Bring DEPTH channels of SIDE * EACH tokens into shared memory; this thread's are those listed, -1 for none.
template <class T, int EACH>
__device__ void fetch(
    Tile<EACH>& tile, const Tokens<T>& x, int head, int begin, const int (&tokens)[EACH], const Real (&scales)[EACH]) {
    const int depth = threadIdx.x % DEPTH, channel = begin + depth;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int row = threadIdx.x / DEPTH + i * SIDE;
        const bool inside = tokens[i] >= 0 && channel < x.width;
        tile[depth][row / EACH].at[row % EACH] = inside ? x.at(head, tokens[i], channel) * scales[i] : Real(0);
    }
}

// Squared distances of candidates and chunk tokens, or products of their unit vectors. Differences, not a Gram matrix:
// keys may have norms in the hundreds and distances of ten.
template <bool DISTANCE, class T, int EACH>
__device__ void accumulate(
    Tile<ROWS_EACH>& rows, Tile<EACH>& cols, const Tokens<T>& x, int head, const int (&row_tokens)[ROWS_EACH],
    const int (&col_tokens)[EACH], Real (&sums)[ROWS_EACH][EACH]) {
    Real row_scales[ROWS_EACH], col_scales[EACH];
#pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i) {
        row_scales[i] = x.scale(head, row_tokens[i]);
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            sums[i][j] = 0;
        }
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        col_scales[j] = x.scale(head, col_tokens[j]);
    }
    for (int begin = 0; begin < x.width; begin += DEPTH) {
        __syncthreads();  // the tiles may still be read
        fetch(rows, x, head, begin, row_tokens, row_scales);
        fetch(cols, x, head, begin, col_tokens, col_scales);
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < DEPTH; ++depth) {
            const Pack<ROWS_EACH> row = rows[depth][threadIdx.x / SIDE];
            const Pack<EACH> col = cols[depth][threadIdx.x % SIDE];
#pragma unroll
            for (int i = 0; i < ROWS_EACH; ++i) {
#pragma unroll
                for (int j = 0; j < EACH; ++j) {
                    const Real left = DISTANCE ? row.at[i] - col.at[j] : row.at[i];
                    sums[i][j] = fma(left, DISTANCE ? left : col.at[j], sums[i][j]);
                }
            }
        }
    }
}

struct Chunk {
    const int* candidates;
    int count;
    const long long* chosen;
    int size;
};

// Raise best[i] to the largest duplication of candidate i of a block with SIDE * EACH tokens of the chunk.
template <int EACH>
__device__ void compare(
    Tile<ROWS_EACH>& rows, Tile<EACH>& cols, Bits* best, const Tokens<FIRST>& first, const Tokens<SECOND>& second,
    int heads, bool gaussian, const Chunk& chunk, int first_row, int first_col) {
    int row_tokens[ROWS_EACH], col_tokens[EACH];
#pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i) {
        const int row = first_row + threadIdx.x / DEPTH + i * SIDE;
        row_tokens[i] = row < chunk.count ? chunk.candidates[row] : -1;
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        const int col = first_col + threadIdx.x / DEPTH + j * SIDE;
        col_tokens[j] = col < chunk.size ? int(chunk.chosen[col]) : -1;
    }
    Real totals[ROWS_EACH][EACH] = {};
    const Real slope = Real(-0.5) / sqrt(Real(first.width));
    for (int head = 0; head < heads; ++head) {
        Real alike[ROWS_EACH][EACH], products[ROWS_EACH][EACH];
        if (gaussian) {
            accumulate<true>(rows, cols, first, head, row_tokens, col_tokens, alike);
        } else {
            accumulate<false>(rows, cols, first, head, row_tokens, col_tokens, alike);
        }
        if (second.data) {
            accumulate<false>(rows, cols, second, head, row_tokens, col_tokens, products);
        }
#pragma unroll
        for (int i = 0; i < ROWS_EACH; ++i) {
#pragma unroll
            for (int j = 0; j < EACH; ++j) {
                const Real one = gaussian ? exp(slope * alike[i][j]) : alike[i][j];
                const Real both = second.data ? one * products[i][j] : one;
                totals[i][j] = fma(both, both, totals[i][j]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i) {
        Real largest = 0;
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            if (first_col + int(threadIdx.x) % SIDE * EACH + j < chunk.size) {
                largest = fmax(largest, totals[i][j] / heads);
            }
        }
        // Numbers that are not negative order like their bits, and a maximum has no order of operations.
        atomicMax(&best[threadIdx.x / SIDE * ROWS_EACH + i], as_bits(fmin(largest, Real(1))));
    }
}

// Raise most[token] of each candidate to its largest duplication with the chunk of its sample, if that wants more.
// Nothing of size candidates x chunk is written. Grid: samples x blocks of rows x blocks of columns, `wide` (for chunks
// above SIDE) with SIDE * ROWS_EACH columns.
extern "C" __global__ void __launch_bounds__(SIDE* SIDE) compare_chunk(
    TOKENS(FIRST, first), const Real* first_inverse_norms, TOKENS(SECOND, second), const Real* second_inverse_norms,
    const int* real, const int* counts, const int* wanted, long long heads, long long tokens, long long gaussian,
    long long wide, long long row_blocks, const int* candidates, long long room, const long long* chosen,
    long long begin, long long size, Bits* most) {
    __shared__ Tile<ROWS_EACH> rows, wide_cols;
    __shared__ Tile<1> narrow_cols;
    __shared__ Bits best[SIDE * ROWS_EACH];
    const int columns = wide ? SIDE * ROWS_EACH : SIDE;
    const int blocks = (size + columns - 1) / columns;
    const long long sample = blockIdx.x / (row_blocks * blocks);
    const int block = blockIdx.x % (row_blocks * blocks);
    const int first_row = block / blocks * SIDE * ROWS_EACH, first_col = block % blocks * columns;
    const int lane = threadIdx.x, count = counts[sample] - begin - size;
    if (wanted[sample] <= begin + size || first_row >= count) {
        return;
    }
    const Tokens<FIRST> x SAMPLE_OF(first, first_inverse_norms, heads);
    const Tokens<SECOND> y SAMPLE_OF(second, second_inverse_norms, heads);
    candidates += sample * tokens;
    most += sample * tokens;
    const Chunk chunk{candidates, count, chosen + sample * room + begin, int(size)};

    if (lane < SIDE * ROWS_EACH) {
        best[lane] = 0;
    }
    __syncthreads();
    if (wide) {
        compare<ROWS_EACH>(rows, wide_cols, best, x, y, heads, gaussian, chunk, first_row, first_col);
    } else {
        compare<1>(rows, narrow_cols, best, x, y, heads, gaussian, chunk, first_row, first_col);
    }
    __syncthreads();
    if (lane < SIDE * ROWS_EACH && first_row + lane < count) {
        atomicMax(&most[candidates[first_row + lane]], best[lane]);
    }
}
