//! Cookies of a request (RFC 6265, 4.2).

use hyper::header::{self, HeaderMap};

/// Returns the value of the first cookie with this name, without quotes. Other cookies may hold any bytes.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let mut named = pairs.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (key == name.as_bytes()).then_some(value)
    });
    let value = named.next()?;
    Some(
        value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""))
            .unwrap_or(value),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn cookies_are_found_by_their_whole_name_in_all_fields() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("xa=0; a=1=2; b=\"q\"; ; c"));
        headers.append("cookie", HeaderValue::from_static("d=4; a=5"));
        assert_eq!(find(&headers, "a"), Some(&b"1=2"[..]));
        assert_eq!(find(&headers, "b"), Some(&b"q"[..]));
        assert_eq!(find(&headers, "d"), Some(&b"4"[..]));
        assert_eq!(find(&headers, "c"), None);
        assert_eq!(find(&headers, "A"), None);
        // Bytes that are no ASCII are another cookie's matter, or the value's own.
        headers.insert(
            "cookie",
            HeaderValue::from_bytes(b"n=J\xc3\xbcrgen; x=\xff; e=5").unwrap(),
        );
        assert_eq!(find(&headers, "e"), Some(&b"5"[..]));
        assert_eq!(find(&headers, "n"), Some("J\u{fc}rgen".as_bytes()));
    }
}
