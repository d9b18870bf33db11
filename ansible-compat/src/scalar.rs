//! Plain YAML scalars as PyYAML resolves them, which is YAML 1.1: `yes` is true, `0644` is 420, `1:30` is 90.
//!
//! The rules are those of PyYAML's `resolver.py` and `constructor.py` (6.0). Times stay the text they are, and so do
//! infinity, not-a-number and integers beyond 64 bits, which JSON has no number for.

use serde_json::{Number, Value};

/// Returns the value of a plain scalar.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    let number = text
        .starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        .then(|| float(text).or_else(|| integer(text)))
        .flatten();
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn split_sign(text: &str) -> (i64, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    }
}

/// Says whether the text is made of these characters and underscores, and does not begin with an underscore.
fn digits(text: &str, radix: u32) -> bool {
    text.starts_with(|c: char| c.is_digit(radix)) && text.chars().all(|c| c.is_digit(radix) || c == '_')
}

fn integer(text: &str) -> Option<Number> {
    let (sign, rest) = split_sign(text);
    let prefixed = |prefix: &str, radix: u32| {
        let body = rest.strip_prefix(prefix)?;
        let sound = !body.is_empty() && body.chars().all(|c| c.is_digit(radix) || c == '_');
        sound
            .then(|| i64::from_str_radix(&body.replace('_', ""), radix).ok())
            .flatten()
    };
    let value = if rest.starts_with("0b") {
        prefixed("0b", 2)?
    } else if rest.starts_with("0x") {
        prefixed("0x", 16)?
    } else if rest == "0" {
        0
    } else if rest.starts_with('0') {
        prefixed("0", 8)?
    } else if rest.contains(':') {
        sexagesimal(rest)?
    } else if digits(rest, 10) {
        return whole(sign, &rest.replace('_', ""));
    } else {
        return None;
    };
    Some(Number::from(sign.checked_mul(value)?))
}

/// Reads a decimal number; one above the signed range may still be an unsigned one.
fn whole(sign: i64, digits: &str) -> Option<Number> {
    match digits.parse::<i64>() {
        Ok(value) => Some(Number::from(sign * value)),
        Err(_) if sign > 0 => digits.parse::<u64>().ok().map(Number::from),
        Err(_) => None,
    }
}

fn sexagesimal(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let first = parts.next().filter(|p| digits(p, 10))?;
    let mut value: i64 = first.replace('_', "").parse().ok()?;
    for part in parts {
        let sound = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit());
        let part: i64 = part.parse().ok().filter(|n| sound && *n < 60)?;
        value = value.checked_mul(60)?.checked_add(part)?;
    }
    Some(value)
}

fn float(text: &str) -> Option<Number> {
    let (sign, rest) = split_sign(text);
    let (head, tail) = rest.split_once('.')?;
    // `.5` takes no sign there.
    if head.is_empty() && rest.len() != text.len() {
        return None;
    }
    let (fraction, exponent) = match tail.split_once(['e', 'E']) {
        Some((fraction, exponent)) => {
            let number = exponent.strip_prefix(['+', '-'])?;
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (fraction, exponent)
        }
        None => (tail, "0"),
    };
    let sound = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !sound(fraction) || (head.is_empty() && !digits(fraction, 10)) {
        return None;
    }
    let value: f64 = if head.contains(':') {
        let fraction: f64 = format!("0.{fraction}").replace('_', "").parse().ok()?;
        sexagesimal(head)? as f64 + fraction
    } else if head.is_empty() || digits(head, 10) {
        format!("{head}.{fraction}e{exponent}").replace('_', "").parse().ok()?
    } else {
        return None;
    };
    Number::from_f64(sign as f64 * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        // Each right side was printed by PyYAML 6.0.
        for (text, wanted) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("0644", json!(420)),
            ("0o14", json!("0o14")),
            ("089", json!("089")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("-12", json!(-12)),
            ("1:30", json!(90)),
            ("190:20:30", json!(685_230)),
            ("1:60", json!("1:60")),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-.5", json!("-.5")),
            ("1e3", json!("1e3")),
            ("1.0e+3", json!(1000.0)),
            ("1.0e3", json!("1.0e3")),
            ("1:30.5", json!(90.5)),
            ("1.30.2", json!("1.30.2")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("2020-01-02", json!("2020-01-02")),
            ("~", json!(null)),
            ("None", json!("None")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("-", json!("-")),
            ("+", json!("+")),
            (".", json!(".")),
        ] {
            assert_eq!(plain(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-+0-9a-fxobe_.:]{0,24}") {
            plain(&text);
        }
    }
}
