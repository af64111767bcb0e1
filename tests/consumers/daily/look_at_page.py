"""look_at_page.py PAGE SCREENSHOTS: what a person sees and does on a page of `inspect --html`, as JSON on standard output."""
import json
import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

# Every tile as the browser laid it out.
TILES = """() => {
    const map = document.getElementById("map").getBoundingClientRect();
    return [...document.querySelectorAll(".tile")].map((tile) => {
        const box = tile.getBoundingClientRect();
        return {
            x: box.x - map.x, y: box.y - map.y, width: box.width, height: box.height,
            title: tile.title, color: getComputedStyle(tile).backgroundColor,
            missed: tile.classList.contains("missed"), chosen: tile.classList.contains("chosen"),
        };
    });
}"""
# Every name on the map as the browser drew it, and how far it reaches out of its box.
LABELS = """() => {
    const map = document.getElementById("map").getBoundingClientRect();
    return [...document.querySelectorAll("#map .tile span, #map .frame a")].map((span) => {
        const [text, box] = [span, span.parentElement].map((item) => item.getBoundingClientRect());
        return {
            text: span.textContent, x: text.x - map.x, y: text.y - map.y, width: text.width, height: text.height,
            out: Math.max(box.left - text.left, text.right - box.right, box.top - text.top, text.bottom - box.bottom),
        };
    });
}"""
SIZE = """() => { const { width, height } = document.getElementById("map").getBoundingClientRect(); return { width, height }; }"""
OVERFLOW = "() => document.documentElement.scrollWidth - innerWidth"
DRAWN = "() => document.querySelectorAll('.tile').length > 0"
# Widths of a phone, a tablet and a window.
WIDTHS = (390, 800, 1440)
READY = "() => performance.now()"


def look(browser, page_file, folder):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    seen = {"requests": [], "errors": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("console", lambda message: seen["errors"].append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (seen["errors"].append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(page_file.as_uri())
    page.wait_for_function(DRAWN)
    seen["milliseconds"] = page.evaluate(READY)
    seen |= {"title": page.title(), "summary": page.inner_text("#summary"), "map": page.evaluate(SIZE)}
    seen |= {"tiles": page.evaluate(TILES), "labels": page.evaluate(LABELS), "overflow": page.evaluate(OVERFLOW), "about": page.inner_text("#about"), "modules": page.inner_text("#modules"), "footer": page.inner_text("footer")}
    page.screenshot(path=folder / "page.png")
    seen["legend"] = page.inner_text("#legend")
    page.select_option("#colouring", "dtype")
    seen["dtype_legend"] = page.inner_text("#legend")
    seen["dtype_tiles"] = page.evaluate(TILES)
    page.select_option("#colouring", "file")
    seen["files_legend"] = page.inner_text("#legend")
    seen["files_tiles"] = page.evaluate(TILES)
    page.fill("#search", "layers.7. up_proj")
    seen["count"] = page.inner_text("#count")
    seen["searched_tiles"] = page.evaluate(TILES)
    page.click("#found a")
    page.wait_for_function("() => document.querySelector('#details h2')")
    seen["found_details"] = page.inner_text("#details")
    page.screenshot(path=folder / "searched.png")
    page.fill("#search", "layers.7.input_layernorm")
    page.click("#found a")
    page.wait_for_function("() => document.querySelector('#details h2')?.textContent.includes('layernorm')")
    seen["small_path"] = page.inner_text("#path")
    page.fill("#search", "")
    page.click("#path a >> nth=0")
    page.wait_for_function("() => !document.querySelector('#details h2')")
    seen["home_path"] = page.inner_text("#path")
    for label in page.query_selector_all(".frame a")[:1]:
        seen["label"] = label.inner_text()
        label.click()
        page.wait_for_function("() => document.querySelectorAll('#path a').length > 1")
        seen["label_path"] = page.inner_text("#path")
        page.click("#path a >> nth=0")
        page.wait_for_function("() => document.querySelectorAll('#path a').length === 1")
    tile = max(page.query_selector_all(".tile"), key=lambda each: each.bounding_box()["width"])
    seen["clicked"] = tile.get_attribute("title")
    tile.click()
    page.wait_for_function("() => document.querySelector('#details h2')")
    seen["clicked_details"] = page.inner_text("#details")
    page.fill("#search", "no such tensor")
    seen["nothing"] = page.inner_text("#count")
    page.fill("#search", "")
    seen |= walk(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("draw()")
        seen[f"at_{width}"] = {
            "overflow": page.evaluate(OVERFLOW), "map": page.evaluate(SIZE), "tiles": page.evaluate(TILES), "labels": page.evaluate(LABELS),
        }
        page.screenshot(path=folder / f"{width}.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=folder / "dark.png")
    seen["dark"] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return seen


def walk(page):
    """The page by its addresses and by keys alone."""
    page.goto(page.url.split("#")[0] + "#module=model.layers.7")
    linked = page.inner_text("#path")
    page.focus(".tile[tabindex='0']")
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("() => document.activeElement.title")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#details h2')")
    opened = page.inner_text("#details h2")
    page.go_back()
    page.wait_for_function("() => !document.querySelector('#details h2')")
    back = page.inner_text("#path")
    page.focus(".tile[tabindex='0']")
    page.keyboard.press("Backspace")
    page.wait_for_function("() => location.hash.endsWith('layers')")
    up = page.inner_text("#path")
    page.keyboard.press("/")
    return {"linked": linked, "focused": focused, "opened": opened, "back": back, "up": up, "slash": page.evaluate("() => document.activeElement.id")}


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(json.dumps(look(chromium, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))))
        chromium.close()
