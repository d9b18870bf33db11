//! Evaluates variables: Jinja expressions, encrypted values, and references to other variables.
//!
//! A [`Scope`] holds the variables of one host. Values are evaluated when they are used, so an unused variable may hold anything.
//! `minijinja` evaluates. The only lookup is `env`, and nothing is ever run. No message repeats a value.

use crate::vault::Keys;
use crate::yaml::{UNSAFE, VAULT};
use minijinja::value::{Kwargs, Object, Rest, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Most references from one variable to the next.
const MAX_DEPTH: usize = 20;
/// Filters that collections name in full.
const PREFIXES: [&str; 4] = [
    "ansible.utils.",
    "ansible.netcommon.",
    "ansible.builtin.",
    "community.general.",
];

/// What one host sees.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    vars: BTreeMap<String, Value>,
    keys: Keys,
    env: Arc<BTreeMap<String, String>>,
    /// Files that could not be opened: a name that is missing may be in one.
    sealed: Vec<String>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope")
    }
}

impl Scope {
    /// Starts with the variables of a host, what Ansible adds to them, and what opens vaults.
    pub fn new(
        vars: BTreeMap<String, Value>,
        keys: Keys,
        env: Arc<BTreeMap<String, String>>,
        sealed: Vec<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            vars,
            keys,
            env,
            sealed,
        }))
    }

    /// Makes out a value, within lists and mappings too; the error says why it cannot be, without repeating it.
    pub fn value(&self, value: &Value) -> Result<Value, String> {
        resolve(&self.0, value, 0)
    }
}

/// Says whether a text holds anything for Jinja.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

fn resolve(scope: &Arc<Inner>, value: &Value, depth: usize) -> Result<Value, String> {
    match value {
        Value::Object(map) if map.contains_key(VAULT) => {
            let text = map[VAULT].as_str().unwrap_or_default();
            let opened = scope.keys.open(text).map_err(|why| why.to_string())?;
            resolve(scope, &Value::String(opened), depth)
        }
        Value::Object(map) if map.len() == 1 && map.contains_key(UNSAFE) => Ok(map[UNSAFE].clone()),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), resolve(scope, value, depth)?)));
            pairs.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| resolve(scope, item, depth));
            items.collect::<Result<_, _>>().map(Value::Array)
        }
        Value::String(text) if is_template(text) => evaluate(scope, text, depth),
        _ => Ok(value.clone()),
    }
}

/// The variables of a scope as Jinja sees them: each is made out when it is named.
#[derive(Debug)]
struct Lazy {
    scope: Arc<Inner>,
    depth: usize,
}

impl Object for Lazy {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let raw = self.scope.vars.get(key.as_str()?)?;
        Some(match resolve(&self.scope, raw, self.depth + 1) {
            Ok(value) => Jinja::from_serialize(value),
            Err(why) => Jinja::from(refused(why)),
        })
    }
}

/// Marks an error whose text is our own, and so repeats no value.
const OURS: &str = "landfall: ";

fn refused(why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{OURS}{why}"))
}

fn evaluate(scope: &Arc<Inner>, text: &str, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("is a Jinja expression that names itself, or a chain of more than 20 variables".to_owned());
    }
    let mut text = text.to_owned();
    for prefix in PREFIXES {
        text = text.replace(prefix, "");
    }
    let env = environment(&scope.env);
    let vars = Jinja::from_object(Lazy {
        scope: Arc::clone(scope),
        depth,
    });
    let single = text
        .trim_end_matches('\n')
        .strip_prefix("{{")
        .and_then(|t| t.strip_suffix("}}"));
    let alone = single.filter(|inner| !is_template(inner) && !inner.contains("}}"));
    // One expression alone keeps its type.
    let found = match alone {
        Some(inner) => expression(&env, inner, vars).map_err(|error| (error, inner.to_owned())),
        None => env
            .render_str(&text, vars)
            .map(Value::String)
            .map_err(|error| (error, text.clone())),
    };
    found.map_err(|(error, source)| explain(scope, &error, &source))
}

fn expression(env: &Environment<'_>, source: &str, vars: Jinja) -> Result<Value, Error> {
    let value = env.compile_expression(source)?.eval(vars)?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    serde_json::to_value(&value).map_err(|_| Error::from(ErrorKind::BadSerialization))
}

/// Says why an expression cannot be made out, by names alone.
fn explain(scope: &Inner, error: &Error, source: &str) -> String {
    if let Some(ours) = error.detail().and_then(|d| d.strip_prefix(OURS)) {
        return ours.to_owned();
    }
    match error.kind() {
        ErrorKind::UndefinedError => {
            let env = environment(&scope.env);
            let wrapped = if is_template(source) {
                source.to_owned()
            } else {
                format!("{{{{{source}}}}}")
            };
            let names = env
                .template_from_str(&wrapped)
                .map(|t| t.undeclared_variables(false))
                .unwrap_or_default();
            let mut missing: Vec<String> = names.into_iter().filter(|n| !scope.vars.contains_key(n)).collect();
            missing.sort();
            let mut why = "holds a Jinja expression with a name that is not defined".to_owned();
            if !missing.is_empty() {
                why.push_str(&format!(": {}", missing.join(", ")));
            }
            if !scope.sealed.is_empty() {
                why.push_str(&format!(
                    "; it may be in {}, which is encrypted: give --vault-password-file or --ask-vault-pass",
                    scope.sealed.join(", ")
                ));
            }
            why
        }
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => {
            let detail = error.detail().unwrap_or_default();
            format!("holds a Jinja expression that landfall cannot evaluate ({detail}); give the value itself")
        }
        kind => format!("holds a Jinja expression that landfall cannot evaluate ({kind}); give the value itself"),
    }
}

fn environment(env: &Arc<BTreeMap<String, String>>) -> Environment<'static> {
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    jinja.set_keep_trailing_newline(true);
    jinja.set_trim_blocks(true);
    let env = Arc::clone(env);
    jinja.add_function("lookup", move |kind: &str, names: Rest<Jinja>, options: Kwargs| {
        let fallback: Option<Jinja> = options.get("default")?;
        let name = names.first().and_then(Jinja::as_str).unwrap_or_default();
        match kind {
            "env" => Ok(env
                .get(name)
                .map(Jinja::from)
                .or(fallback)
                .unwrap_or_else(|| Jinja::from(""))),
            _ => Err(refused(format_args!(
                "holds a Jinja lookup of {kind}, which landfall does not run; only env is; give the value itself"
            ))),
        }
    });
    jinja.add_filter("bool", |value: Jinja| match value.as_str() {
        Some(text) => ["yes", "on", "1", "true", "y", "t"].contains(&text.to_ascii_lowercase().as_str()),
        None => value.is_true(),
    });
    jinja.add_filter(
        "ternary",
        |value: Jinja, yes: Jinja, no: Jinja| if value.is_true() { yes } else { no },
    );
    jinja.add_filter("mandatory", |value: Jinja| value);
    jinja.add_filter("ipaddr", ipaddr);
    jinja.add_filter("ipv4", |value: &str| ipaddr(value, None));
    jinja
}

/// The part of `ansible.utils.ipaddr` that inventories use: the address, network, prefix or mask of an IPv4 text.
fn ipaddr(text: &str, query: Option<&str>) -> Result<Jinja, Error> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let (Ok(address), Ok(prefix)) = (address.parse::<std::net::Ipv4Addr>(), prefix.parse::<u32>()) else {
        return Ok(Jinja::from(false));
    };
    if prefix > 32 {
        return Ok(Jinja::from(false));
    }
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    let network = std::net::Ipv4Addr::from(u32::from(address) & mask);
    Ok(match query {
        None => Jinja::from(text),
        Some("address") => Jinja::from(address.to_string()),
        Some("network") => Jinja::from(network.to_string()),
        Some("subnet") => Jinja::from(format!("{network}/{prefix}")),
        Some("netmask") => Jinja::from(std::net::Ipv4Addr::from(mask).to_string()),
        Some("prefix") => Jinja::from(prefix),
        Some(_) => {
            return Err(refused(
                "holds a query of ipaddr that landfall does not know; give the value itself",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(vars: Value) -> Scope {
        let Value::Object(vars) = vars else { panic!("a mapping") };
        let env = Arc::new(BTreeMap::from([("WHO".to_owned(), "me".to_owned())]));
        Scope::new(
            vars.into_iter().collect(),
            Keys::default(),
            env,
            vec!["vault.yml".into()],
        )
    }

    #[test]
    fn expressions_are_evaluated_and_keep_their_type() {
        let scope = scope(json!({
            "name": "cp1", "n": 3, "all": {"x": ["a", "b"]}, "twice": "{{ name }}-{{ n }}", "deep": "{{ twice }}!",
            "cidr": "10.1.2.3/24", "yes": "yes",
        }));
        // Each right side was printed by ansible-core 2.19.14.
        for (text, wanted) in [
            ("{{ name }}.example.net", json!("cp1.example.net")),
            ("{{ n }}", json!(3)),
            ("{{ all.x[1] }}", json!("b")),
            ("{{ all['x'] | join(',') }}", json!("a,b")),
            ("{{ deep }}", json!("cp1-3!")),
            ("{{ other | default('d') }}", json!("d")),
            ("{{ '22' | int }}", json!(22)),
            ("{{ yes | bool }}", json!(true)),
            ("{{ name | upper | lower }}", json!("cp1")),
            ("{{ cidr | ansible.utils.ipaddr('address') }}", json!("10.1.2.3")),
            ("{{ cidr | ansible.utils.ipaddr('network') }}", json!("10.1.2.0")),
            ("{{ lookup('env', 'WHO') }}", json!("me")),
            ("{% if n > 2 %}big{% else %}small{% endif %}", json!("big")),
            ("{{ n == 3 }}", json!(true)),
            ("plain", json!("plain")),
        ] {
            assert_eq!(scope.value(&json!(text)), Ok(wanted), "{text}");
        }
        assert_eq!(
            scope.value(&json!({"a": ["{{ n }}", {UNSAFE: "{{ n }}"}]})),
            Ok(json!({"a": [3, "{{ n }}"]}))
        );
    }

    #[test]
    fn what_cannot_be_made_out_is_said_without_a_value() {
        let scope =
            scope(json!({"secret": "hush", "loop": "{{ loop }}", "v": {VAULT: "$ANSIBLE_VAULT;1.1;AES256\n00"}}));
        for (text, wanted) in [
            ("{{ vault_pass }}", "not defined: vault_pass; it may be in vault.yml"),
            ("{{ secret }}-{{ nosuch }}", "not defined: nosuch"),
            ("{{ lookup('file', 'hush') }}", "lookup of file"),
            ("{{ secret | b64decode }}", "b64decode"),
            ("{{ loop }}", "names itself"),
            ("{{ secret", "cannot evaluate"),
            ("{{ v }}", "encrypted by ansible-vault"),
        ] {
            let why = scope.value(&json!(text)).unwrap_err();
            assert!(why.contains(wanted), "{text}: {why}");
            assert!(!why.contains("hush"), "{why}");
        }
    }
}
