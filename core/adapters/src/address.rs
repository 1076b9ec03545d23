//! Addresses of hubs and brokers: `scheme://user:password@host:port/path?option=value`.

use mobo_core::link::LinkError;

/// A parsed address. It prints without its password.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Address {
    pub(crate) scheme: String,
    /// User name and password.
    pub(crate) login: Option<(String, String)>,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With its leading slash; empty if absent.
    pub(crate) path: String,
    /// Behind the question mark.
    pub(crate) query: String,
}

impl Address {
    /// Reads an address of one of these schemes, each with its default port.
    pub(crate) fn parse(text: &str, schemes: &[(&str, u16)]) -> Result<Self, LinkError> {
        let wrong = |why: &str| LinkError::Unreachable { peer: shown(text), why: why.to_owned() };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("the address has no scheme, as in mqtt://host:port"))?;
        let port = schemes.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port);
        let default_port = port.ok_or_else(|| wrong(&format!("\"{scheme}\" is no scheme that fits here")))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let decoded = |text| decode(text).ok_or_else(|| wrong("its user name or password has a broken % sign: write %25 for it"));
                (Some((decoded(user)?, decoded(password)?)), place)
            }
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default_port), str::parse).map_err(|_| wrong("its port is no number up to 65535"))?;
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        Ok(Self { scheme: scheme.into(), login, host: host.into(), port, path: path.into(), query: query.into() })
    }

    /// The host for whoever joins it with a port by itself.
    #[cfg(feature = "mqtt")]
    pub(crate) fn socket_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// `host:port`, as a socket and a `Host` header want it.
    pub(crate) fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The value of an option behind the question mark.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|option| option.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.place(), self.path)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({self})")
    }
}

/// An address that could not be read, without what may be a password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        (_, Some((_, place))) => place.to_owned(),
        (_, None) => text.to_owned(),
    }
}

/// `%41` is `A`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        if *byte == b'%' {
            let (digits, more) = rest.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = more;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: &[(&str, u16)] = &[("mqtt", 1883), ("ws", 80)];

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let address = |scheme: &str, login: Option<(&str, &str)>, (host, port): (&str, u16), path: &str| Address {
            scheme: scheme.into(),
            login: login.map(|(user, password)| (user.into(), password.into())),
            host: host.into(),
            port,
            path: path.into(),
            query: String::new(),
        };
        for (text, want) in [
            ("mqtt://broker", address("mqtt", None, ("broker", 1883), "")),
            ("mqtt://[::1]:1884", address("mqtt", None, ("::1", 1884), "")),
            ("mqtt://a%40b:p%3aw:@h:1", address("mqtt", Some(("a@b", "p:w:")), ("h", 1), "")),
            ("ws://127.0.0.1:8000/sync/v1", address("ws", None, ("127.0.0.1", 8000), "/sync/v1")),
        ] {
            let got = Address::parse(text, SCHEMES).unwrap();
            assert_eq!(got, want);
            assert!(!format!("{got} {got:?}").contains("p:w"), "{got:?}");
        }
        assert_eq!(Address::parse("mqtt://h?version=3.1.1", SCHEMES).unwrap().option("version"), Some("3.1.1"));
        for text in ["h:1", "http://h", "mqtt://", "mqtt://u:secret@h:99999", "mqtt://u:se%xxcret@h", "mqtt://:1"] {
            let error = Address::parse(text, SCHEMES).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("cret@"), "{error}");
        }
    }
}
