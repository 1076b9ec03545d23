//! Lists of any length, a page at a time.

use std::process::ExitCode;

use mobo_core::limits;
use mobo_runtime::command::{self, ask};
use mobo_runtime::output::{Failure, Format, print};
use serde_json::{Value, json};

use super::{Common, Part};

/// Prints a part of a list: as JSON one array, written while the pages come; as a table what fits one, and how to see the rest.
pub(super) fn print_part(common: &Common, verb: &str, part: &Part) -> Result<ExitCode, Failure> {
    print_part_with(common, verb, part, &json!({}))
}

/// The same of a list that takes more arguments.
pub(super) fn print_part_with(common: &Common, verb: &str, part: &Part, more: &Value) -> Result<ExitCode, Failure> {
    let ask = |rows: u32, after: Option<&str>| {
        let mut args = json!({ "limit": rows, "after": after });
        if let (Some(args), Some(more)) = (args.as_object_mut(), more.as_object()) {
            args.extend(more.clone());
        }
        ask(&common.data_dir, verb, args)
    };
    match common.output {
        Format::Json => {
            let mut between = "[";
            pages(part, part.limit, ask, |items| {
                for item in items {
                    printed(&format!("{between}{item}"))?;
                    between = ",\n";
                }
                Ok(())
            })?;
            printed(if between == "[" { "[]\n" } else { "]\n" })?;
        }
        Format::Table => {
            let mut rows = Vec::new();
            let next = pages(part, Some(part.limit.unwrap_or(limits::LIST_ROWS)), ask, |items| {
                rows.extend(items);
                Ok(())
            })?;
            for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                row.remove("cursor");
            }
            command::show(common.output, &Value::Array(rows))?;
            if let Some(next) = next {
                printed(&format!("\nThere are more: `{verb} --after {next}` shows the next ones, and `{verb} -o json` all.\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for pages until there are `limit` rows or no more; gives the place behind the last row, if there is more.
fn pages(
    part: &Part,
    limit: Option<u32>,
    ask: impl Fn(u32, Option<&str>) -> Result<Value, Failure>,
    mut take: impl FnMut(Vec<Value>) -> Result<(), Failure>,
) -> Result<Option<String>, Failure> {
    let (mut after, mut wanted) = (part.after.clone(), limit);
    loop {
        let rows = wanted.unwrap_or(u32::MAX).min(limits::CONTROL_PAGE_ROWS_MAX);
        let mut page = ask(rows, after.as_deref())?;
        let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
        wanted = wanted.map(|wanted| wanted.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX)));
        let done = items.is_empty() || next.is_none() || wanted == Some(0);
        take(items)?;
        if done {
            return Ok(next);
        }
        after = next;
    }
}

fn printed(text: &str) -> Result<(), Failure> {
    print(text).map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of the numbers from 1, in pages of at most three: the numbers that come, and where more would be.
    #[track_caller]
    fn check(rows: u64, (limit, after): (Option<u32>, Option<&str>), want: &[u64], more: Option<&str>) {
        let ask = |wanted: u32, after: Option<&str>| {
            let first = after.map_or(1, |after| after.parse::<u64>().unwrap() + 1);
            let last = rows.min(first + u64::from(wanted.min(3)) - 1);
            let items: Vec<u64> = (first..=last).collect();
            Ok(json!({ "items": items, "next": (last < rows).then(|| last.to_string()) }))
        };
        let mut got = Vec::new();
        let part = Part { limit, after: after.map(str::to_owned) };
        let next = pages(&part, limit, ask, |items| {
            got.extend(items.iter().filter_map(Value::as_u64));
            Ok(())
        });
        assert_eq!((got.as_slice(), next.unwrap().as_deref()), (want, more), "{rows} rows, {limit:?} after {after:?}");
    }

    #[test]
    fn a_list_is_followed_to_its_end_or_its_limit() {
        check(0, (None, None), &[], None);
        check(7, (None, None), &[1, 2, 3, 4, 5, 6, 7], None);
        check(7, (Some(4), None), &[1, 2, 3, 4], Some("4"));
        check(7, (Some(3), Some("4")), &[5, 6, 7], None);
        check(7, (Some(7), None), &[1, 2, 3, 4, 5, 6, 7], None);
        check(7, (None, Some("7")), &[], None);
    }
}
