"""The page of the service, driven in Chromium; the tests run in the order of this file, and go on where one ended."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

import tans_core as tans
from tests.factories.browser import Page, browser
from tests.factories.http_service import Served, served
from tests.factories.project import image_folder

pytestmark = pytest.mark.slow


HOSTILE = "<img src=x onerror=alert(1)>&amp; ‮ash"
RANKED = "!document.getElementById('networks').hidden && document.querySelector('#ranking li')"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(project, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def page(service: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("downloads")) as opened:
        opened.driver.get(str(service.client.base_url))
        opened.until("document.getElementById('release').textContent.includes('networks in release')")
        yield opened


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, one with a name that is markup, and a file that is no image."""
    folder = image_folder(tmp_path_factory.mktemp("home") / "photos")
    (folder / "elm").rename(folder / HOSTILE)
    return folder


@pytest.fixture(scope="module")
def query(images: Path, project: Path) -> tans.Query:
    return tans.embed(images, root=project)


def models(page: Page) -> list[str]:
    return page.texts("#ranking h3 > bdi")


def uploads(service: Served) -> int:
    """How many uploads were scanned."""
    lines = [line for line in service.client.get("/metrics").text.splitlines() if "tans_requests_total" in line]
    return sum(int(float(line.split()[-1])) for line in lines if 'route="/v1/scan"' in line)


def test_empty_page_can_be_used_by_everyone(page: Page) -> None:
    assert page.faults() == []
    assert page.find("#choose-folder").accessible_name == "Choose a folder"


def test_dropped_folder_is_checked_and_ranked_as_the_api_does(
    page: Page, images: Path, query: tans.Query, project: Path
) -> None:
    page.drop("#drop", [images])
    page.until(RANKED)
    page.until("document.querySelectorAll('#classes canvas').length === 15")
    assert page.texts("#classes h3") == sorted(path.name for path in images.iterdir())
    assert "36 images in 3 classes: ready" in page.find("#verdict").text
    assert any(line.startswith("ash/broken.png: ") for line in page.texts("#findings li"))
    assert models(page) == [one.model for one in tans.retrieve(query, root=project, top_k=10)]
    page.until("!document.getElementById('map-figure').hidden")
    tasks = {card.home_task for card in tans.list_models(project) if card.class_names}
    assert page.count("#map rect") == len(tasks) and page.count("#map circle title") == 16
    assert set(page.texts("#near-tasks th")) <= tasks and page.count("#near-tasks tr") == min(5, len(tasks))
    assert page.faults() == []


def test_slider_ranks_again_within_the_limit_without_the_images(
    page: Page, query: tans.Query, project: Path, service: Served
) -> None:
    before, sent = models(page), uploads(service)
    page.find("#macs").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 30)
    page.until("/^[0-9]+ of 16 networks/.test(document.querySelector('#networks .status').textContent)")
    page.until("!document.querySelector('#networks .status').textContent.startsWith('16 of')")
    limit = float(page.find("#macs-value").text.split()[2])
    within = [one.model for one in tans.retrieve(query, root=project, top_k=10, max_macs_m=limit)]
    assert models(page) == within != before
    assert uploads(service) == sent > 0


def test_family_and_licence_limit_too_and_nothing_fits_is_explained(page: Page) -> None:
    page.run("for (const box of document.querySelectorAll('#licences input')) box.click()")
    page.until("!document.querySelector('#networks .problem').hidden")
    assert "0 of 16 models satisfy" in page.find("#networks .problem").text
    assert models(page) == []
    page.find("#no-limits").click()
    page.until("document.querySelectorAll('#ranking li').length === 10")
    assert not page.find("#networks .problem").is_displayed()


def test_order_and_home_tasks_are_chosen_and_reset(page: Page, query: tans.Query, project: Path) -> None:
    page.find("#per-task").send_keys("1")
    page.run("document.querySelector('#prefer').value = 'small'")
    page.run("document.querySelector('#prefer').dispatchEvent(new Event('change'))")
    wanted = [one.model for one in tans.retrieve(query, root=project, top_k=10, per_task=1, prefer="small")]
    page.until(f"document.querySelectorAll('#ranking li').length === {len(wanted)}")
    assert models(page) == wanted
    refused = page.find("#homes input").get_attribute("value")
    page.run("document.querySelector('#homes input').click()")
    page.until("document.getElementById('home-count').textContent === 'Home tasks: all but 1'")
    wanted = [
        one.model for one in tans.retrieve(query, root=project, top_k=10, per_task=1, prefer="small", not_home=refused)
    ]
    listed = "[...document.querySelectorAll('#ranking h3 > bdi')].map((one) => one.textContent).join()"
    page.until(f"{listed} === {json.dumps(','.join(wanted))}")
    page.find("#no-limits").click()
    page.until("document.querySelectorAll('#ranking li').length === 10")
    assert page.find("#per-task").get_attribute("value") == ""


def test_refining_shows_what_the_first_networks_can_do_on_the_images(page: Page) -> None:
    page.find("#refine").click()
    page.until("document.querySelector('#ranking p').textContent.includes('On your images')")
    page.find("#refine").click()
    page.until("!document.querySelector('#ranking p').textContent.includes('On your images')")


def test_fine_tuning_is_started_and_watched_to_its_end(page: Page, project: Path) -> None:
    runs = set((project / "runs").glob("*"))
    model = models(page)[0]
    page.find("#ranking button").click()
    page.find("#epochs").send_keys("3", Keys.ENTER)
    page.until("document.querySelector('#trying').hidden === false", 300)
    (run,) = set((project / "runs").glob("*")) - runs
    assert page.find("#tuned-model").text == model
    assert page.count("#points tr") == page.count("#curve circle") == 3
    accuracy = json.loads((run / "predict.json").read_text())["test_accuracy"]
    assert page.find("#result .figure").text == f"{100 * accuracy:.0f} %"
    assert page.faults() == []


@pytest.mark.parametrize("words", ["Weights", "ONNX", "Card", "Report"])
def test_files_of_the_run_are_downloaded(page: Page, project: Path, words: str) -> None:
    run = max((project / "runs").glob("*-finetune-*"))
    button = next(
        one for one in page.driver.find_elements("css selector", "#download-buttons button") if words in one.text
    )
    button.click()
    page.until("document.querySelector('#tuning .status').textContent.endsWith(': downloaded.')", 300)
    file = page.find("#tuning .status").text.partition(":")[0]
    original = run / "export" / file if words == "ONNX" else run / file
    got = page.downloads / f"{run.name}-{file}"
    page.run("document.querySelector('#tuning .status').textContent = ''")
    for _ in range(100):
        if got.is_file():
            break
        page.driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert got.read_bytes() == original.read_bytes()


def test_new_pictures_get_classes_and_probabilities(page: Page, project: Path, images: Path, tmp_path: Path) -> None:
    run = max((project / "runs").glob("*-finetune-*"))
    new = [tmp_path / "<b>one.png", tmp_path / "two.png", tmp_path / "broken.png"]
    for path, original in zip(new, ("ash/1.png", "oak/2.png", "ash/broken.png"), strict=True):
        shutil.copy(images / original, path)
    page.drop("#try-drop", new)
    page.until("document.querySelectorAll('#predictions li').length === 3")
    expected = [tans.predict(run, path)[0] for path in new[:2]]
    assert page.texts("#predictions h3") == [one.label for one in expected]
    shown = page.texts("#predictions li")
    for one, text, path in zip(expected, shown, new, strict=False):
        assert one.probability is not None
        assert f"{100 * one.probability:.0f} %" in text and path.name in text
    assert page.count("#predictions .bad") == 1 and "broken.png" in shown[2]
    page.set_scheme("dark")
    assert page.faults() == []
    page.set_scheme("light")


def test_page_fits_a_phone(page: Page) -> None:
    page.set_width(390)
    page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.run("return document.documentElement.scrollWidth") == 390
    page.set_width(1280)


def test_page_that_was_closed_finds_its_fine_tuning_again(page: Page) -> None:
    page.driver.refresh()
    page.until("document.querySelector('#jobs button')")
    page.find("#jobs button").click()
    page.until("document.querySelectorAll('#curve circle').length === 3 && !document.getElementById('trying').hidden")


def test_zip_is_taken_as_it_is_and_its_pictures_are_shown(page: Page, images: Path, tmp_path: Path) -> None:
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(images.rglob("*.png")):
            archive.write(path, path.relative_to(images.parent))
    page.find("#choose-file").send_keys(str(packed))
    page.until("document.querySelectorAll('#classes canvas').length === 15")
    page.until(RANKED)


def test_classes_are_gathered_one_by_one(page: Page, images: Path) -> None:
    page.driver.refresh()
    page.find("#by-class summary").click()
    for label in ("ash", "oak"):
        page.find("#class-name").send_keys(label)
        page.find("#class-files").send_keys(
            "\n".join(str(path) for path in sorted((images / label).glob("[0-9]*.png")))
        )
        page.until(f"document.getElementById('class-list').textContent.includes('{label} 12 images')")
    page.find("#class-done").click()
    page.until(RANKED)
    assert page.texts("#classes h3") == ["ash", "oak"]


def test_what_cannot_be_used_is_said(page: Page, images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken/ash").mkdir(parents=True)
    (tmp_path / "broken/oak").mkdir()
    for path in (images / "oak").iterdir():
        shutil.copy(path, tmp_path / "broken/oak")
    (tmp_path / "broken/ash/1.png").write_bytes(b"no image")
    page.drop("#drop", [tmp_path / "broken"])
    page.until("document.getElementById('verdict').textContent.includes('not usable')")
    assert "'ash'" in page.find("#verdict-boxes .bad").text
    assert not page.find("#networks").is_displayed()
    (tmp_path / "notes.txt").write_text("nothing")
    page.drop("#drop", [tmp_path / "notes.txt"])
    page.until("document.querySelector('#images .problem').textContent.includes('no image')")
    assert page.errors() == []


def test_token_is_asked_for_and_kept_in_the_tab(page: Page, project: Path, tmp_path: Path) -> None:
    with served(project, tmp_path, token=TOKEN) as guarded:
        page.driver.get(str(guarded.client.base_url))
        page.until("!document.getElementById('token').hidden")
        page.driver.switch_to.active_element.send_keys("a wrong token of a person", Keys.ENTER)
        page.until("document.getElementById('token-why').textContent.includes('not the right one')")
        assert page.faults() == []
        page.driver.switch_to.active_element.send_keys(TOKEN, Keys.ENTER)
        page.until("document.getElementById('release').textContent.includes('networks')")
        assert page.run("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        page.driver.refresh()
        page.until("document.getElementById('release').textContent.includes('networks')")
        assert not page.find("#token").is_displayed()
