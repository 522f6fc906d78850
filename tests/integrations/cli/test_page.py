"""The page of `iwp demo --browser`, through its client and in a headless browser; run by ``make test-demo``."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio (make test-demo)")

from iwp_cli.page import HOST, make_page, serve
from iwp_cli.trial import Trials

SEED = 14
PATIENCE = 120  # seconds

pytestmark = pytest.mark.usefixtures("small_decoder")


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note every address outside of this machine that this process connects to."""
    others: list[object] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {HOST, "localhost", "::1"}:
            others.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noting)
    return others


@pytest.fixture
def address(reached: list[object]) -> Iterator[str]:
    """Serve the page."""
    page = make_page(Trials(), seed=SEED)
    yield serve(page, None)
    page.close()
    assert reached == [], "nothing is reported, and no newer version is looked for"


def test_the_page_is_served_to_this_machine_alone(address: str) -> None:
    """On the loopback address, with nothing of Gradio's in the footer."""
    from gradio_client import Client

    client = Client(address, verbose=False)

    assert address.startswith(f"http://{HOST}:")
    assert client.config["analytics_enabled"] is False
    assert client.config.get("footer_links") == []
    assert not client.config.get("is_space")


def test_a_port_that_is_taken_is_refused(address: str) -> None:
    """In one line."""
    from iwp_cli.refusal import Refusal

    port = int(address.rstrip("/").rpartition(":")[2])

    with pytest.raises(Refusal, match=f"--port {port}: no page can be served there"):
        serve(make_page(Trials(), seed=SEED), port)


def test_programs_can_ask_it_too(address: str, tmp_path: Path) -> None:
    """A picture of one's own, and a choice that is refused, as text without markup."""
    from gradio_client import Client, handle_file
    from PIL import Image

    Image.effect_noise((96, 96), 60).convert("RGB").save(tmp_path / "own.png")
    client = Client(address, verbose=False)
    own = handle_file(tmp_path / "own.png")

    kept, answers = client.predict(own, "largest digit ?", "divprune", 50, 0, api_name="/answer")
    none, refused = client.predict(own, "largest digit ?", "fastv", 50, 0, api_name="/answer")
    _, unknown = client.predict(own, "<b>bold</b> ?", "divprune", 50, 0, api_name="/answer")
    saving = client.predict("divprune", 10, 0, api_name="/saving")

    with Image.open(kept if isinstance(kept, str) else kept["path"]) as picture:
        assert picture.size == (96, 96)
    assert "| visual tokens | 192 | 96 |" in answers
    assert none is None
    assert refused.startswith("**Not possible:** fastv: \\`layer\\` is 0")
    assert "<b>" not in unknown
    assert "| visual tokens | 2,709 | 271 |" in saving


@pytest.fixture
def browser() -> Iterator[Any]:
    """Start a headless Chromium that knows no other host than this machine."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="driving a browser needs selenium")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1300,1600"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


def test_moving_the_budget_in_a_browser_changes_tokens_picture_and_seconds(address: str, browser: Any) -> None:
    """Everything comes from this machine, and the console stays empty."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def text(name: str) -> str:
        return str(browser.find_element(By.ID, name).text)

    def until(true: Callable[[], Any]) -> None:
        WebDriverWait(browser, PATIENCE, ignored_exceptions=[Exception]).until(lambda _: true())

    def picture() -> str:
        return str(browser.find_element(By.CSS_SELECTOR, "#kept img").get_attribute("src"))

    def enter(field: str, value: str) -> None:
        element = browser.find_element(By.CSS_SELECTOR, field)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(value, Keys.TAB)

    browser.get(address)
    until(lambda: "visual tokens 192 21" in text("answers") and picture())
    until(lambda: "visual tokens 2,709 301" in text("saving"))
    assert "right answer cyan cyan" in text("answers")
    before, seconds = picture(), text("saving")

    enter("#budget input[type=number]", "50")
    until(lambda: "visual tokens 192 96" in text("answers"))
    until(lambda: "visual tokens 2,709 1,355" in text("saving"))
    assert "seconds to the first token" in text("saving")
    assert text("saving") != seconds
    assert picture() != before

    enter("#question input", "largest digit ?")
    until(lambda: "right answer" not in text("answers") and "answer 8 8" in text("answers"))

    enter("#question input", "where is the cat ?")
    until(lambda: "Not possible:" in text("answers") and "unknown word 'where'" in text("answers"))

    browser.find_element(By.ID, "draw").click()
    until(lambda: "right answer" in text("answers"))

    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert urls
    assert [url for url in urls if not url.startswith((address, "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
