//! What the name of a channel says of it.

use mobo_core::limits;

/// Who comes into a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Anybody.
    Public,
    /// Who has a signature.
    Private,
    /// Likewise, and everybody sees who is there.
    Presence,
}

impl Kind {
    /// The kind of a channel.
    pub(super) fn of(name: &str) -> Self {
        if name.starts_with("presence-") {
            Self::Presence
        } else if name.starts_with("private-") {
            Self::Private
        } else {
            Self::Public
        }
    }
}

/// True for a channel that shows its last event to who comes in.
pub(super) fn has_memory(name: &str) -> bool {
    ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"].iter().any(|prefix| name.starts_with(prefix))
}

/// True for a name that a channel can have.
pub(super) fn is_channel(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    !name.is_empty() && name.len() <= limits::CHANNEL_NAME_MAX && name.bytes().all(fits)
}

/// The room of a channel: names of the other protocol are others.
pub(super) fn room(app: &str, channel: &str) -> String {
    format!("pusher:{app}:{channel}")
}

/// The room in which the connections of a user are.
pub(super) fn user_room(app: &str, user: &str) -> String {
    format!("pusher-user:{app}:{user}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_comes_in() {
        for (name, kind, memory) in [
            ("news", Kind::Public, false),
            ("private-a", Kind::Private, false),
            ("presence-a", Kind::Presence, false),
            ("cache-a", Kind::Public, true),
            ("private-cache-a", Kind::Private, true),
            ("presence-cache-a", Kind::Presence, true),
            ("privates", Kind::Public, false),
        ] {
            assert_eq!((Kind::of(name), has_memory(name), is_channel(name)), (kind, memory, true), "{name}");
        }
        for bad in ["", "a b", "a/b", "a:b", "ä", &"x".repeat(165)] {
            assert!(!is_channel(bad), "{bad}");
        }
    }
}
