//! Servers that stand in for others.

use std::str::FromStr;
use ureq::http::Uri;

/// A server that is asked before another one, for files and images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The host that it stands in for, as addresses and image names have it: `docker.io`, `dl.k8s.io`, `registry.example:5000`.
    host: String,
    /// Where it is, `https://host[:port][/path]` without trailing slash.
    base: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} does not have the form HOST=https://MIRROR[/PATH]");
        let (host, base) = text.split_once('=').ok_or_else(form)?;
        let base = base.trim_end_matches('/');
        if host.is_empty() || host.contains('/') {
            return Err(form());
        }
        check_url(base).map_err(|why| format!("{}: {why}", form()))?;
        Ok(Self {
            host: host.to_owned(),
            base: base.to_owned(),
        })
    }
}

/// Says why something is no address that may be asked.
pub(super) fn check_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "it is no address")?;
    if uri.scheme_str() != Some("https") {
        return Err("it must begin with https://");
    }
    match uri.authority() {
        None => Err("it names no host"),
        Some(authority) if authority.as_str().contains('@') => Err("it must hold no user and no password"),
        Some(_) => Ok(uri),
    }
}

/// Where a host's content is looked for, in this order: its mirrors, then itself at `origin`.
pub(super) fn places(mirrors: &[Mirror], host: &str, origin: String) -> Vec<String> {
    let own = mirrors.iter().filter(|mirror| mirror.host == host);
    own.map(|mirror| mirror.base.clone()).chain([origin]).collect()
}

/// The addresses of a file, in the order in which they are tried.
pub(super) fn addresses(mirrors: &[Mirror], url: &str) -> Vec<String> {
    let Ok(uri) = check_url(url) else {
        return vec![];
    };
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let places = places(mirrors, host, format!("https://{host}"));
    places.into_iter().map(|base| format!("{base}{path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_before_the_host_itself() {
        let mirrors: Vec<Mirror> = ["dl.k8s.io=https://a/k8s/", "x=https://b", "dl.k8s.io=https://c:1"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(
            addresses(&mirrors, "https://dl.k8s.io/release/x?y"),
            [
                "https://a/k8s/release/x?y",
                "https://c:1/release/x?y",
                "https://dl.k8s.io/release/x?y"
            ]
        );
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        for wrong in [
            "",
            "a",
            "a=",
            "=https://b",
            "a=http://b",
            "a/b=https://c",
            "a=https://u:p@b",
            "a=b",
        ] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }
}
