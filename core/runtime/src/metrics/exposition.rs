//! The text in which Prometheus reads metrics, version 0.0.4.

use std::fmt::Write as _;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations, counted by size.
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of metrics, while it is written. Each family is written once, all its series in one go.
#[derive(Clone, Debug, Default)]
pub struct Exposition(Vec<Written>);

/// A metric that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// What kind of number it is.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: String,
    /// Its series.
    pub samples: Vec<Sample>,
}

/// One series of a metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The part of a histogram: `_bucket` with its bound in the label `le`, `_sum`, `_count`. Empty for other kinds.
    pub suffix: &'static str,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl Exposition {
    /// Begins a metric.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let written = Written { name: name.to_owned(), kind, help: help.to_owned(), samples: Vec::new() };
        Family(&mut self.0.push_mut(written).samples)
    }

    /// A metric with one series and no label.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// What was written so far.
    #[must_use]
    pub fn families(&self) -> &[Written] {
        &self.0
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = String::new();
        self.0.iter().for_each(|written| written.write(&mut text));
        text
    }
}

/// A metric whose series are written.
#[derive(Debug)]
pub struct Family<'a>(&'a mut Vec<Sample>);

impl Family<'_> {
    /// One series: label names and values, and the number.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    /// The same of a part of a histogram, as in `_bucket`.
    pub(super) fn part(&mut self, suffix: &'static str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.0.push(Sample { suffix, labels, value });
    }
}

impl Written {
    fn write(&self, text: &mut String) {
        let Self { name, kind, help, samples } = self;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
        for Sample { suffix, labels, value } in samples {
            let _ = write!(text, "{name}{suffix}");
            for (position, (name, value)) in labels.iter().enumerate() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(text, "{}{name}=\"{value}\"", if position == 0 { '{' } else { ',' });
            }
            let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }
}
