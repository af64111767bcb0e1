//! The form of a name: its components, with the numbers taken out.

use std::borrow::Cow;

use foldhash::{HashSet, HashSetExt};

/// Parameters of which Transformer Engine's grouped layers have one for each expert: `linear_fc1.weight12`.
const GROUPED: [&str; 2] = ["weight", "bias"];

/// A name's form and its numbers.
pub fn form_of(name: &str) -> (String, Vec<u64>) {
    let mut numbers = Vec::new();
    let mut form = String::with_capacity(name.len());
    for (i, component) in name.split('.').enumerate() {
        if i > 0 {
            form.push('.');
        }
        match number(component) {
            Some((front, number, back)) => {
                numbers.push(number);
                form.push_str(front);
                form.push_str("{}");
                form.push_str(back);
            }
            None => form.push_str(component),
        }
    }
    (form, numbers)
}

/// The number in a component, and the text around it: all of it, or what follows the name of a grouped parameter.
pub fn number(component: &str) -> Option<(&str, u64, &str)> {
    let front = GROUPED.iter().find(|front| component.starts_with(**front));
    let (front, rest) = component.split_at(front.map_or(0, |front| front.len()));
    let end = rest.find(|char: char| !char.is_ascii_digit());
    let (number, back) = rest.split_at(end.filter(|_| !front.is_empty()).unwrap_or(rest.len()));
    (!number.is_empty()).then_some(())?;
    Some((front, digits(number)?, back))
}

/// The number that a component of plain digits stands for. `007` is no number: it would come out as `7`.
fn digits(component: &str) -> Option<u64> {
    let plain = component.bytes().all(|byte| byte.is_ascii_digit())
        && (component == "0" || !component.starts_with('0'));
    if plain { component.parse().ok() } else { None }
}

/// One name of each form speaks for all layers.
pub fn one_of_each_form<'a>(names: &'a [Cow<'_, str>]) -> Vec<Cow<'a, str>> {
    let mut forms = HashSet::new();
    let is_new = |name: &&Cow<'_, str>| forms.insert(form_of(name).0);
    let samples = names.iter().filter(is_new);
    samples.map(|name| Cow::Borrowed(&**name)).collect()
}
