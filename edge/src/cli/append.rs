//! `append` from standard input: a line is a sample, and what has come in by now goes into one write.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::process::ExitCode;

use clap::ValueEnum;
use mobo_core::level::AckLevel;
use mobo_core::{json, limits, names};
use mobo_runtime::command::{self, block_on};
use mobo_runtime::control::ControlClient;
use mobo_runtime::output::{Failure, exit};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{Common, Waiting};

/// How a line is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LineFormat {
    /// A JSON object in each line.
    Ndjson,
    /// A first line with the names of the fields, and a line of values for each sample; an empty value is null.
    Csv,
}

/// Appends what standard input holds, line by line, until it ends.
pub(super) fn from_input(common: &Common, stream: &str, format: LineFormat, waiting: Waiting) -> Result<ExitCode, Failure> {
    let (sender, lines) = mpsc::channel(limits::APPEND_BATCH_MAX);
    // Its thread ends with the input, or with this process.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let (report, reached) = block_on(send(common, stream, (format, waiting), lines))?;
    command::show(common.output, &report)?;
    Ok(ExitCode::from(if reached { exit::FINE } else { exit::FAILED }))
}

/// What was appended, and whether all of it is as safe as wanted.
async fn send(
    common: &Common,
    stream: &str,
    (format, waiting): (LineFormat, Waiting),
    mut lines: mpsc::Receiver<io::Result<String>>,
) -> Result<(Value, bool), Failure> {
    let mut client = ControlClient::connect(&common.data_dir).await?;
    let mut reader = Lines { format, names: None, number: 0 };
    let (mut appended, mut lowest) = (0_u64, None::<AckLevel>);
    let (mut batch, mut waits) = (Vec::new(), VecDeque::new());
    while !waits.is_empty() || lines.recv_many(&mut batch, limits::APPEND_BATCH_MAX).await > 0 {
        waits.extend(batch.drain(..));
        let so_far = |why: String| {
            let hint = format!("{appended} samples before it are appended: correct the line, and send the rest");
            Failure::usage(why, hint)
        };
        let (samples, wrong) = reader.read_some(&mut waits);
        let wrong = wrong.map(so_far);
        if !samples.is_empty() {
            let count = samples.len() as u64;
            let args = json!({
                "collection": stream, "value": samples, "loose": format == LineFormat::Csv,
                "wait": waiting.wait.name(), "timeout_ms": waiting.timeout * 1_000,
            });
            let done = client.call("append", args).await.map_err(|error| {
                let failure = Failure::from(error);
                let message = format!("{} (in the {count} lines up to line {})", failure.message, reader.number);
                Failure::new(failure.exit, message, format!("{appended} samples before them are appended; {}", failure.hint))
            })?;
            appended += count;
            let level = done.get("ack").and_then(Value::as_str).and_then(|word| word.parse::<AckLevel>().ok());
            lowest = lowest.min(level).or(level);
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
    }
    let ack = lowest.map(AckLevel::name);
    Ok((json!({ "appended": appended, "ack": ack }), lowest.is_none_or(|level| level >= waiting.wait)))
}

/// Lines as samples.
struct Lines {
    format: LineFormat,
    /// The names of the fields, once their line was read.
    names: Option<Vec<String>>,
    number: u64,
}

impl Lines {
    /// Samples of the first lines, as many as one write takes, and what is wrong with the line behind them.
    fn read_some(&mut self, lines: &mut VecDeque<io::Result<String>>) -> (Vec<Value>, Option<String>) {
        let (mut samples, mut bytes) = (Vec::new(), 0);
        while bytes < limits::APPEND_BATCH_BYTES_MAX
            && let Some(line) = lines.pop_front()
        {
            let line = line.map_err(|error| format!("standard input cannot be read: {error}"));
            match line.and_then(|line| self.read(&line)) {
                Ok(None) => {}
                Ok(Some(sample)) => {
                    let sample = Value::Object(sample);
                    bytes += sample.to_string().len();
                    samples.push(sample);
                }
                Err(why) => return (samples, Some(why)),
            }
        }
        (samples, None)
    }

    /// The sample of a line; `None` for an empty one, and for the line of names.
    fn read(&mut self, line: &str) -> Result<Option<Map<String, Value>>, String> {
        self.number += 1;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line).trim_end_matches('\r');
        if line.trim().is_empty() {
            return Ok(None);
        }
        let wrong = |why: String| format!("line {}: {why}", self.number);
        if self.format == LineFormat::Ndjson {
            return match json::read(line.as_bytes()) {
                Ok(Value::Object(fields)) => Ok(Some(fields)),
                Ok(_) => Err(wrong("a sample is a JSON object of its fields, like {\"celsius\": 21.5}".to_owned())),
                Err(error) => Err(wrong(format!("this is not JSON: {error}"))),
            };
        }
        let values = split(line).ok_or_else(|| wrong("a quote is not closed, or something stands behind it".to_owned()))?;
        let Some(names) = &self.names else {
            let names: Vec<String> = values.into_iter().map(|value| value.unwrap_or_default().trim().to_owned()).collect();
            if let Some(name) = names::twice(&names) {
                return Err(wrong(format!("it names \"{name}\" twice")));
            }
            self.names = Some(names);
            return Ok(None);
        };
        if values.len() != names.len() {
            return Err(wrong(format!("it has {} values, and the first line {} names", values.len(), names.len())));
        }
        let present = names.iter().zip(values).filter_map(|(name, value)| Some((name.clone(), Value::String(value?))));
        Ok(Some(present.collect()))
    }
}

/// The values of a CSV line (RFC 4180, without line breaks in values); an empty one without quotes is none.
fn split(line: &str) -> Option<Vec<Option<String>>> {
    let (mut values, mut rest) = (Vec::new(), line);
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            None => {
                let (value, after) = rest.find(',').map_or((rest, ""), |at| rest.split_at(at));
                (Some(value.to_owned()).filter(|value| !value.is_empty()), after)
            }
            Some(quoted) => {
                let (mut value, mut quoted) = (String::new(), quoted);
                loop {
                    let (part, after) = quoted.split_once('"')?;
                    value.push_str(part);
                    match after.strip_prefix('"') {
                        Some(after) => {
                            value.push('"');
                            quoted = after;
                        }
                        None => break (Some(value), after),
                    }
                }
            }
        };
        values.push(value);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return after.is_empty().then_some(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_samples() {
        let read = |format, lines: &[&str]| {
            let mut reader = Lines { format, names: None, number: 0 };
            let samples: Result<Vec<_>, String> = lines.iter().map(|line| reader.read(line)).collect();
            samples.map(|samples| json!(samples.into_iter().flatten().collect::<Vec<_>>()))
        };
        for (format, lines, want) in [
            (LineFormat::Ndjson, &["{\"a\":1}", "", "{\"a\":2}\r"][..], Ok(json!([{"a": 1}, {"a": 2}]))),
            (LineFormat::Ndjson, &["", "7"], Err("line 2: a sample is a JSON object")),
            (LineFormat::Ndjson, &["{"], Err("line 1: this is not JSON")),
            (
                LineFormat::Csv,
                &["\u{feff}a, b", "1,x", ",\"y, \"\"z\"\"\"", "\"\","],
                Ok(json!([{"a": "1", "b": "x"}, {"b": "y, \"z\""}, {"a": ""}])),
            ),
            (LineFormat::Csv, &["a,b", "1"], Err("line 2: it has 1 values, and the first line 2 names")),
            (LineFormat::Csv, &["a", "\"x"], Err("line 2: a quote is not closed")),
            (LineFormat::Csv, &["a", "\"x\"y"], Err("line 2: a quote is not closed")),
        ] {
            match (read(format, lines), want) {
                (Ok(samples), Ok(want)) => assert_eq!(samples, want),
                (Err(error), Err(want)) => assert!(error.starts_with(want), "{error}"),
                (read, want) => panic!("{lines:?}: {read:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_write_takes_as_many_lines_as_fit_an_entry() {
        let line = |length: usize| Ok(format!("{{\"note\":\"{}\"}}", "x".repeat(length)));
        let cases = [(10, 500, vec![500]), (2_000, 500, vec![66, 66, 66, 66, 66, 66, 66, 38]), (65_000, 5, vec![3, 2])];
        for (length, count, want) in cases {
            let mut lines: VecDeque<io::Result<String>> = (0..count).map(|_| line(length)).collect();
            let mut reader = Lines { format: LineFormat::Ndjson, names: None, number: 0 };
            let mut batches = Vec::new();
            while !lines.is_empty() {
                let (samples, wrong) = reader.read_some(&mut lines);
                assert_eq!(wrong, None);
                batches.push(samples.len());
            }
            assert_eq!((batches, reader.number), (want, count as u64), "{length}");
        }
        let mut lines = VecDeque::from([line(1), Ok("[]".to_owned()), line(1)]);
        let mut reader = Lines { format: LineFormat::Ndjson, names: None, number: 0 };
        let (samples, wrong) = reader.read_some(&mut lines);
        assert_eq!((samples.len(), lines.len()), (1, 1));
        assert!(wrong.unwrap().starts_with("line 2"));
    }
}
