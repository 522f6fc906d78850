"""The page of `iwp demo --browser`, in Gradio, which the extra `demo` installs.

It is served on this machine alone, to its own browsers. Nothing is shared, reported or fetched.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from iwp_cli.digits import BUDGET, LAYER
from iwp_cli.refusal import Refusal
from iwp_cli.trial import LAYERS, METHOD_NAMES, Choice, Scene, Trials

__all__ = ["HOST", "make_page", "serve"]

HOST = "127.0.0.1"
INTRODUCTION = """# Which visual tokens does a question need?
A small LLaVA-OneVision, trained on coloured handwritten digits and shipped with the package, answers a question about
the picture: once with all visual tokens, and once with only some of them from a layer on. Bright parts of the second
picture were kept, dark parts were dropped."""
SAVING = """## What that saves
The same method, budget and layer on a photograph of 2,709 visual tokens, in a model of 12 layers with random weights.
Its seconds are real; its answers mean nothing and are not shown. All tokens are measured once, the pruned prefill after
each change, both after a warm-up."""
BUTTONS = ["fullscreen", "download"]
"""Of the pictures: the third that Gradio has would upload one."""


def make_page(trials: Trials, *, picture: Path | None = None, seed: int | None = None) -> Any:
    """Lay out the page.

    Parameters
    ----------
    trials : Trials
        The models that answer.
    picture : pathlib.Path, optional
        Image file to begin with. Default: a picture of digits, drawn anew.
    seed : int, optional
        Draws the first picture of digits.

    Returns
    -------
    gradio.Blocks
    """
    first = Scene.drawn(seed)
    with gr.Blocks(title="iwp demo", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        scene = gr.State(first)
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                image = _picture("Picture: drawn, or your own", str(picture) if picture else first.shown)
                with gr.Row():
                    number = gr.Number(seed, label="Seed", info="Empty: another picture each time", precision=0)
                    new = gr.Button("Draw a new picture", elem_id="draw")
            kept = _picture("Visual tokens kept", elem_id="kept")
        question = _questions(first if picture is None else Scene(first.picture, {}))
        choice = _choices()
        answers = gr.Markdown(elem_id="answers")
        gr.Markdown(SAVING)
        saving = gr.Markdown("Measuring ...", elem_id="saving")
        method, percent, layer = choice
        one_at_a_time: Any = {"concurrency_limit": 1, "trigger_mode": "always_last"}
        asked: Any = {"fn": _answers(trials), "inputs": [image, question, *choice, scene], "outputs": [kept, answers]}
        asked |= {**one_at_a_time, "concurrency_id": "answer", "show_progress": "hidden"}
        changed = [question.input, method.input, percent.change, layer.change, image.upload, image.clear]
        gr.on([page.load, *changed], **asked, api_name="answer")
        new.click(_drawn, [number], [scene, image, question], api_name="draw").then(**asked, api_visibility="private")
        # Measured when a slider is let go, since it takes seconds.
        finished = [page.load, method.input, percent.release, layer.release]
        gr.on(finished, _saving(trials), choice, [saving], **one_at_a_time, api_name="saving")
    return page


def _picture(label: str, value: Any = None, **options: Any) -> Any:
    """Return a picture on the page: one that can be replaced if it has a value, else one that is shown."""
    return gr.Image(
        value,
        label=label,
        type="filepath",
        format="png",  # what is drawn arrives as it was
        sources=["upload", "clipboard"],
        interactive=value is not None,
        buttons=BUTTONS,
        height=400,
        **options,
    )


def _questions(scene: Scene) -> Any:
    """Return a list to choose a question from, or to type one into."""
    questions = scene.questions
    return gr.Dropdown(questions, value=questions[0], label="Question", allow_custom_value=True, elem_id="question")


def _choices() -> list[Any]:
    """Return what chooses method, budget and layer."""
    with gr.Row():
        return [
            gr.Dropdown(list(METHOD_NAMES), value=METHOD_NAMES[0], label="Method", elem_id="method"),
            gr.Slider(
                1, 100, value=100 * BUDGET, step=0.1, label="Budget (% of the visual tokens kept)", elem_id="budget"
            ),
            gr.Slider(0, LAYERS - 1, value=LAYER, step=1, label="Layer that drops the others", elem_id="layer"),
        ]


def _drawn(number: float | None) -> tuple[Scene, Any, Any]:
    """Draw a scene; return it, its picture and its questions."""
    scene = Scene.drawn(None if number is None else max(0, int(number)))
    return scene, scene.shown, _questions(scene)


def _answers(trials: Trials) -> Callable[..., tuple[Any, str]]:
    def answers(
        path: str | None, question: str | None, method: str, percent: float, layer: int, scene: Scene
    ) -> tuple[Any, str]:
        choice = Choice(method=method, percent=percent, layer=layer)
        try:
            answer = trials.answer(Path(path) if path else None, question, choice, scene)
        except Refusal as refusal:
            return None, _refused(refusal)
        return answer.kept, _table(answer.rows, choice)

    return answers


def _saving(trials: Trials) -> Callable[[str, float, int], str]:
    def saving(method: str, percent: float, layer: int) -> str:
        choice = Choice(method=method, percent=percent, layer=layer)
        try:
            return _table(trials.saving(choice), choice)
        except Refusal as refusal:
            return _refused(refusal)

    return saving


def _table(rows: Sequence[tuple[str, str, str]], choice: Choice) -> str:
    head = f"| | all tokens | {choice.method}, from layer {choice.layer} on |\n|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _refused(refusal: Refusal) -> str:
    """Return a refusal as text that is no markup, since it may quote what somebody typed."""
    text = "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+-.!|$~&" else letter for letter in str(refusal))
    return f"**Not possible:** {text}"


def serve(page: Any, port: int | None) -> str:
    """Serve the page until the process ends, and return its address.

    Parameters
    ----------
    page : gradio.Blocks
        From `make_page`.
    port : int or None
        Where; None for the first free one from 7860 on.

    Returns
    -------
    str

    Raises
    ------
    Refusal
        If the port is taken.
    """
    try:
        _, address, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size="64mb",
        )
    except OSError as error:
        msg = f"--port {port}: no page can be served there: it is taken, or not allowed"
        raise Refusal(msg, code=1) from error
    return str(address)
