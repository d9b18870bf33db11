//! Cookies of a request (RFC 6265, 4.2).

use hyper::header::{self, HeaderMap};

/// Returns the value of the first cookie with this name, without quotes.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    let pairs = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|text| text.split(';'));
    let mut named = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    });
    let value = named.next()?;
    Some(
        value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
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
        assert_eq!(find(&headers, "a"), Some("1=2"));
        assert_eq!(find(&headers, "b"), Some("q"));
        assert_eq!(find(&headers, "d"), Some("4"));
        assert_eq!(find(&headers, "c"), None);
        assert_eq!(find(&headers, "A"), None);
    }
}
