//! `--html`: one page that needs nothing else, with the report in it as JSON.

use serde_json::json;

use super::report::Report;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

pub fn page(source: &str, report: &Report) -> serde_json::Result<String> {
    let data = json!({ "source": source, "report": report }).to_string();
    // A name in a checkpoint may be `</script>`. In JSON, `<` stands in strings alone.
    let data = data.replace('<', "\\u003c");
    Ok(TEMPLATE
        .replacen("/* page.css */", STYLE, 1)
        .replacen("/* page.js */", SCRIPT, 1)
        .replacen("/* data */", &data, 1))
}
