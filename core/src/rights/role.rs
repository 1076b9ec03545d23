//! Roles: the words that keys, users and policies have in common.

use std::cmp::Ordering;

/// What a caller is. Four are always there; others are made by name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// Everything, and the accounts.
    Admin,
    /// A trusted backend, or a program on the device itself: all collections.
    Service,
    /// An app without a user: nothing, until a policy allows it.
    Anon,
    /// A user who signed in, and was given no other role: likewise.
    Authenticated,
    /// A role of the project: likewise.
    Named(Box<str>),
}

/// A text that cannot be a role's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a role's name has 1 to {NAME_CHARS_MAX} small letters, digits and _, and begins with a letter")]
pub struct BadRole;

const NAME_CHARS_MAX: usize = 63;

impl Role {
    /// Those that are always there.
    pub const FIXED: [Self; 4] = [Self::Admin, Self::Service, Self::Anon, Self::Authenticated];

    /// The word in commands, in tokens and in the store.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Admin => "admin",
            Self::Service => "service",
            Self::Anon => "anon",
            Self::Authenticated => "authenticated",
            Self::Named(name) => name,
        }
    }

    /// The role for a word. That a role of that name was made is for others to see to.
    ///
    /// # Errors
    ///
    /// [`BadRole`] for a text that cannot be a role's name.
    pub fn from_name(name: &str) -> Result<Self, BadRole> {
        if let Some(role) = Self::FIXED.into_iter().find(|role| role.name() == name) {
            return Ok(role);
        }
        let good = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.len() <= NAME_CHARS_MAX
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if good { Ok(Self::Named(name.into())) } else { Err(BadRole) }
    }

    /// True for whom no policy binds.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        match self {
            Self::Admin | Self::Service => true,
            Self::Anon | Self::Authenticated | Self::Named(_) => false,
        }
    }

    /// True for a role that is always there.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        match self {
            Self::Admin | Self::Service | Self::Anon | Self::Authenticated => true,
            Self::Named(_) => false,
        }
    }
}

impl Ord for Role {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Role {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_plain_names() {
        for name in ["admin", "service", "anon", "authenticated", "editor", "a", "shift_lead2"] {
            assert_eq!(Role::from_name(name).unwrap().name(), name);
        }
        for bad in ["", "Admin", "1a", "_a", "a b", "a-b", "ä", &"a".repeat(64)] {
            assert_eq!(Role::from_name(bad), Err(BadRole), "{bad}");
        }
    }
}
