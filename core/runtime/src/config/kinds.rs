//! The types that a setting can have, and how each is written.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A type of setting: written as text in every layer, and as `FORM` in TOML.
pub trait Kind: PartialOrd + Sized + 'static {
    /// What is expected, to end "… is not".
    const EXPECTED: &'static str;
    /// How it is written in TOML.
    const FORM: TomlForm;

    /// The value for a text; `None` when it is not one.
    fn parse(text: &str) -> Option<Self>;
}

/// How a value is written in TOML.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TomlForm {
    /// In quotes.
    Quoted,
    /// In quotes with a unit, or a bare number.
    QuotedOrNumber,
    /// A bare number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Kind for String {
    const EXPECTED: &'static str = "a text";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Kind for i64 {
    const EXPECTED: &'static str = "a whole number";
    const FORM: TomlForm = TomlForm::Number;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Kind for bool {
    const EXPECTED: &'static str = "true or false";
    const FORM: TomlForm = TomlForm::Boolean;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Kind for Duration {
    const EXPECTED: &'static str = "a time with its unit, as in 250ms, 10s, 5m, 2h or 14d";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let ms_per_unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.checked_mul(ms_per_unit).map(Self::from_millis)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(pub u64);

impl Kind for ByteSize {
    const EXPECTED: &'static str = "a size with its unit, as in 512KiB, 64MiB, 2GiB, or a number of bytes";
    const FORM: TomlForm = TomlForm::QuotedOrNumber;

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let bytes_per_unit = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.checked_mul(bytes_per_unit).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 30) == 0 => write!(f, "{}GiB", bytes >> 30),
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

impl Kind for SocketAddr {
    const EXPECTED: &'static str = "an address with its port, as in 127.0.0.1:8000 or [::]:8000 (port 0 takes any free one)";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A setting that may be left empty.
impl<T: Kind> Kind for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const FORM: TomlForm = T::FORM;

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// The parts of a setting that holds several with commas between them, without the blanks around them and the empty ones.
pub fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
