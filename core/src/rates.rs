//! Rate rules: how many requests of a kind one caller may make in a time. An operator writes them in one line.
//!
//! One rule is `LABEL=COUNT/TIME` or `LABEL@AUDIENCE=COUNT/TIME`, as in `orders:create=10/1s`; commas stand between several.
//!
//! | label | which requests |
//! |---|---|
//! | `orders:create` | those that make records of this collection: `POST` and `PUT`, and GraphQL's `insertIntoOrdersCollection` |
//! | `orders:read`, `orders:update`, `orders:delete` | those that read, change or remove them; event streams and histories are read |
//! | `orders:*` | those that do anything to it |
//! | `*:create` (`*:read`, …) | those that do this to any collection |
//! | `*:auth` | those that try a password, a link or a refresh token |
//! | `/rest/v1/orders` | those to this path and to all below it; `/` is every request |
//! | `POST /graphql/v1` | the same, with this method only |
//!
//! The audience `@guest` is whoever shows nothing, or only a key that anybody can read (`mobo_pub_…`): he is counted by address. `@auth` is
//! whoever shows a user's token or a secret key, and is counted by that. Without an audience a rule holds for both, each counted his own way;
//! trials are always counted by address. COUNT is 1 to a billion, TIME a number with s, m or h, from one second to a day.
//!
//! A request is counted by at most two rules: the most special one of what it does (`orders:create` before `orders:*` before `*:create`) and the
//! one of its longest path (with a method before without); of two that are alike, the one with an audience. Both must let it pass. One request
//! is one, however many rows it writes; an operation of GraphQL counts for each of its fields that reads or writes a collection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::rights::Action;

/// The rules of a node, in the order in which they were written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules(Vec<Rule>);

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// As it is written and shown: `orders:create@guest`.
    pub name: Arc<str>,
    /// So many requests of one caller in a window.
    pub requests: u32,
    /// The window, in whole seconds.
    pub window: Duration,
    label: Label,
    audience: Option<Audience>,
}

/// Who asks, as far as it is seen before anything is looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Whoever shows nothing, or only what anybody can read.
    Guest,
    /// Whoever shows a user's token or a secret key.
    Auth,
}

impl Audience {
    /// The word behind the `@`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Auth => "auth",
        }
    }
}

/// What a request does, as labels have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act<'a> {
    /// Something to a collection.
    To(&'a str, Action),
    /// It tries a password, a link or a refresh token.
    Trial,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Label {
    /// What is done to which collection; `None` for any.
    Act { collection: Option<String>, action: Option<Action> },
    /// A password, a link or a refresh token is tried.
    Trial,
    /// Where, by the parts of the path.
    Path { method: Option<String>, segments: Vec<String> },
}

/// Why a text is no list of rules.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{rule}\": {why}")]
pub struct BadRule {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub why: String,
}

impl Rules {
    /// The rules of a text; none for an empty one.
    ///
    /// # Errors
    ///
    /// [`BadRule`] for the first that is none, for one label twice, and for more than [`limits::RATE_RULES_MAX`].
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        let mut rules: Vec<Rule> = Vec::new();
        for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let bad = |why: String| BadRule { rule: text.to_owned(), why };
            let rule = Rule::parse(text).map_err(bad)?;
            if rules.iter().any(|known| known.label == rule.label && known.audience == rule.audience) {
                return Err(bad(format!("there are two rules for {}", rule.name)));
            }
            if rules.len() >= limits::RATE_RULES_MAX {
                return Err(bad(format!("there are more than {} rules", limits::RATE_RULES_MAX)));
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// All of them; their places are what the other functions give.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.0
    }

    /// The place of the rule for who does that.
    #[must_use]
    pub fn of_act(&self, act: Act<'_>, audience: Audience) -> Option<usize> {
        self.most_special(audience, |label| label.weight_of_act(act))
    }

    /// The place of the rule for who asks there. `segments` are the parts of the path, decoded.
    #[must_use]
    pub fn of_path(&self, method: &str, segments: &[&str], audience: Audience) -> Option<usize> {
        self.most_special(audience, |label| label.weight_of_path(method, segments))
    }

    fn most_special(&self, audience: Audience, weight: impl Fn(&Label) -> Option<usize>) -> Option<usize> {
        let fits = |(place, rule): (usize, &Rule)| {
            let is_meant = rule.audience.is_none_or(|meant| meant == audience);
            let weight = weight(&rule.label).filter(|_| is_meant)?;
            Some(((weight, rule.audience.is_some()), place))
        };
        self.0.iter().enumerate().filter_map(fits).max().map(|(_, place)| place)
    }
}

impl Label {
    fn parse(text: &str) -> Result<Self, String> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method), path.trim_start()),
            None => (None, text),
        };
        if let Some(below) = path.strip_prefix('/') {
            if method.is_some_and(|method| !METHODS.contains(&method)) {
                return Err(format!("a method is one of {}", METHODS.join(", ")));
            }
            let segments: Vec<String> = below.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            let is_plain = |part: &String| part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\"\\".contains(&byte));
            return if segments.iter().all(is_plain) {
                Ok(Self::Path { method: method.map(str::to_owned), segments })
            } else {
                Err("a path is written as people read it, without %, quotes or a query".to_owned())
            };
        }
        let known = "a label is COLLECTION:ACTION (as in orders:create, *:create, orders:*), *:auth, or a path such as /rest/v1/orders";
        let (collection, action) = text.split_once(':').ok_or(known)?;
        let is_name = !collection.is_empty() && collection.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match (collection, action) {
            ("*", "auth") => Ok(Self::Trial),
            (_, "auth") => Err("accounts are of no collection: write *:auth".to_owned()),
            ("*", "*") => Err("write / for every request".to_owned()),
            ("*", action) => Ok(Self::Act { collection: None, action: Some(act(action)?) }),
            (collection, _) if !is_name => Err(format!("\"{collection}\" is no name of a collection")),
            (collection, "*") => Ok(Self::Act { collection: Some(collection.to_owned()), action: None }),
            (collection, action) => Ok(Self::Act { collection: Some(collection.to_owned()), action: Some(act(action)?) }),
        }
    }

    /// How special it is among those for this; `None` where it does not mean it.
    fn weight_of_act(&self, asked: Act<'_>) -> Option<usize> {
        match (self, asked) {
            (Self::Trial, Act::Trial) => Some(0),
            (Self::Act { collection, action }, Act::To(name, done)) => {
                let is_meant = collection.as_deref().is_none_or(|meant| meant == name) && action.is_none_or(|meant| meant == done);
                is_meant.then_some(2 * usize::from(collection.is_some()) + usize::from(action.is_some()))
            }
            (Self::Trial | Self::Act { .. } | Self::Path { .. }, _) => None,
        }
    }

    fn weight_of_path(&self, asked: &str, parts: &[&str]) -> Option<usize> {
        let Self::Path { method, segments } = self else { return None };
        let is_meant = method.as_deref().is_none_or(|meant| meant == asked)
            && segments.len() <= parts.len()
            && segments.iter().zip(parts).all(|(meant, part)| meant == part);
        is_meant.then_some(2 * segments.len() + usize::from(method.is_some()))
    }
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

fn act(word: &str) -> Result<Action, String> {
    let known = || format!("\"{word}\" is no action: {}, auth or *", Action::ALL.map(Action::name).join(", "));
    Action::from_name(word).ok_or_else(known)
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let form = "a rule is LABEL=COUNT/TIME, as in orders:create=10/1s";
        let (name, quota) = text.split_once('=').ok_or(form)?;
        let (count, time) = quota.split_once('/').ok_or(form)?;
        let (label, audience) = match name.trim().split_once('@') {
            None => (name.trim(), None),
            Some((label, "guest")) => (label, Some(Audience::Guest)),
            Some((label, "auth")) => (label, Some(Audience::Auth)),
            Some((_, other)) => return Err(format!("\"{other}\" is no audience: write @guest or @auth")),
        };
        if label.len() > limits::RATE_LABEL_BYTES_MAX {
            return Err(format!("a label has at most {} bytes", limits::RATE_LABEL_BYTES_MAX));
        }
        let requests = count.trim().parse().ok().filter(|count| (1..=limits::RATE_REQUESTS_MAX).contains(count));
        let window = window(time.trim()).filter(|window| (Duration::from_secs(1)..=limits::RATE_RULE_WINDOW_MAX).contains(window));
        let label = Label::parse(label)?;
        Ok(Self {
            name: shown(&label, audience).into(),
            requests: requests.ok_or_else(|| format!("COUNT is 1 to {}", limits::RATE_REQUESTS_MAX))?,
            window: window.ok_or("TIME is 1s to 24h: a number with s, m or h")?,
            label,
            audience,
        })
    }
}

fn window(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn shown(label: &Label, audience: Option<Audience>) -> String {
    audience.map_or_else(|| label.to_string(), |audience| format!("{label}@{}", audience.name()))
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trial => f.write_str("*:auth"),
            Self::Act { collection, action } => {
                write!(f, "{}:{}", collection.as_deref().unwrap_or("*"), action.map_or("*", Action::name))
            }
            Self::Path { method, segments } => {
                method.iter().try_for_each(|method| write!(f, "{method} "))?;
                write!(f, "/{}", segments.join("/"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the rules for who does that, there.
    #[track_caller]
    fn check(rules: &str, (act, request): (Option<Act<'_>>, &str), audience: Audience, want: &[&str]) {
        let rules = Rules::parse(rules).unwrap();
        let (method, path) = request.split_once(' ').unwrap();
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let places = [act.and_then(|act| rules.of_act(act, audience)), rules.of_path(method, &segments, audience)];
        let names: Vec<&str> = places.into_iter().flatten().map(|place| &*rules.all()[place].name).collect();
        assert_eq!(names, want, "{act:?} {request} {audience:?}");
    }

    #[test]
    fn the_most_special_rule_counts() {
        let rules = "*:create=9/1s, *:create@guest=5/1s, orders:*=8/1s, orders:create@auth=7/1s, *:auth=3/1m,
             /=100/1h, /rest/v1/orders=50/1m, POST /rest/v1/orders=40/1m, /graphql/v1@guest=2/10s";
        let to = |name, action| Some(Act::To(name, action));
        let (guest, auth) = (Audience::Guest, Audience::Auth);
        for (asked, audience, want) in [
            ((to("notes", Action::Create), "POST /rest/v1/notes"), guest, ["*:create@guest", "/"].as_slice()),
            ((to("notes", Action::Create), "POST /rest/v1/notes"), auth, &["*:create", "/"]),
            ((to("notes", Action::Read), "GET /rest/v1/notes"), auth, &["/"]),
            ((to("orders", Action::Create), "POST /rest/v1/orders"), guest, &["orders:*", "POST /rest/v1/orders"]),
            ((to("orders", Action::Create), "POST /rest/v1/orders"), auth, &["orders:create@auth", "POST /rest/v1/orders"]),
            ((to("orders", Action::Read), "GET /rest/v1/orders/7/history"), auth, &["orders:*", "/rest/v1/orders"]),
            ((to("orders2", Action::Read), "GET /rest/v1/orders2"), auth, &["/"]),
            ((None, "POST /graphql/v1"), guest, &["/graphql/v1@guest"]),
            ((None, "POST /graphql/v1"), auth, &["/"]),
            ((Some(Act::Trial), "POST /auth/v1/token"), auth, &["*:auth", "/"]),
        ] {
            check(rules, asked, audience, want);
        }
        check("", (None, "GET /"), guest, &[]);
        check("orders:create=1/1s", (to("orders", Action::Delete), "GET /rest/v1/orders"), guest, &[]);
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        for (text, why) in [
            ("orders", "LABEL=COUNT/TIME"),
            ("orders:create", "LABEL=COUNT/TIME"),
            ("orders:create=5", "LABEL=COUNT/TIME"),
            ("orders=5/1s", "a label is COLLECTION:ACTION"),
            ("orders:make=5/1s", "is no action: read, create, update, delete, auth or *"),
            ("orders:auth=5/1s", "write *:auth"),
            ("*:*=5/1s", "write / for"),
            ("or ders:read=5/1s", "is no name"),
            (":read=5/1s", "is no name"),
            ("FETCH /rest=5/1s", "a method is one of"),
            ("/rest/v1/a%20b=5/1s", "as people read it"),
            ("/rest?a=5/1s", "as people read it"),
            ("/a\"b=5/1s", "as people read it"),
            ("/rest@all=5/1s", "is no audience"),
            ("/rest=0/1s", "COUNT is 1"),
            ("/rest=1000000001/1s", "COUNT is 1"),
            ("/rest=-1/1s", "COUNT is 1"),
            ("/rest=5/0s", "TIME is 1s"),
            ("/rest=5/25h", "TIME is 1s"),
            ("/rest=5/10", "TIME is 1s"),
            ("/rest=5/1ä", "TIME is 1s"),
            ("/rest=5/", "TIME is 1s"),
            ("/rest=5/1s, /rest/=6/1s", "two rules for /rest"),
        ] {
            let bad = Rules::parse(text).unwrap_err();
            assert!(bad.to_string().contains(why), "{text}: {bad}");
        }
        let many: Vec<String> = (0..=limits::RATE_RULES_MAX).map(|n| format!("/{n}=1/1s")).collect();
        assert!(Rules::parse(&many.join(",")).is_err());
        assert!(Rules::parse(&format!("/{}=1/1s", "x".repeat(limits::RATE_LABEL_BYTES_MAX))).is_err());
        assert_eq!(Rules::parse(" , ,"), Ok(Rules::default()));
    }

    #[test]
    fn the_default_rules_are_rules() {
        let rules = Rules::parse(limits::RATE_RULES).unwrap();
        let names: Vec<&str> = rules.all().iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, ["*:create@guest", "/graphql/v1@guest"]);
        assert!(rules.all().iter().all(|rule| rule.window == Duration::from_secs(60) && rule.requests == 600));
    }
}
