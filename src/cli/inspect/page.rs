//! `--html`: one page that needs nothing else, with the report in it as JSON.

use serde_json::json;

use super::report::Report;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script in the order of its parts, each of which uses those before it.
const SCRIPT: &str = concat!(
    include_str!("page/model.js"),
    include_str!("page/layout.js"),
    include_str!("page/colours.js"),
    include_str!("page/page.js"),
);

/// The page of `report`; `command` is the line that made it.
pub fn page(source: &str, command: &str, report: &Report) -> serde_json::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let data =
        json!({ "source": source, "command": command, "version": version, "report": report });
    // A name in a checkpoint may be `</script>`. In JSON, `<` stands in strings alone.
    let data = data.to_string().replace('<', "\\u003c");
    Ok(TEMPLATE
        .replacen("/* page.css */", STYLE, 1)
        .replacen("/* page.js */", SCRIPT, 1)
        .replacen("/* data */", &data, 1))
}
