//! The little XML that S3 speaks: the text between tags that are known.

/// The text of the first element of that name; `None` where there is none, or where it is not closed.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).next().map(unescaped)
}

/// What is inside each element of that name. Elements of one name are never nested in what S3 sends.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(&open)?;
        let (inside, behind) = behind.split_once(&close)?;
        rest = behind;
        Some(inside)
    })
}

/// For an attribute or a text.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#34;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_elements_are_found_and_nothing_else_is() {
        let xml = "<?xml?><L><K>a</K><C><K>b &amp;amp; c</K></C><Open>x";
        assert_eq!(elements(xml, "K").collect::<Vec<_>>(), ["a", "b &amp;amp; c"]);
        assert_eq!(text(xml, "K").as_deref(), Some("a"));
        assert_eq!(text(elements(xml, "C").next().unwrap(), "K").as_deref(), Some("b &amp; c"));
        assert_eq!((text(xml, "Open"), text(xml, "Z"), text("", "K")), (None, None, None));
        assert_eq!(unescaped(&escaped("<a & \"b\">")), "<a & \"b\">");
    }
}
