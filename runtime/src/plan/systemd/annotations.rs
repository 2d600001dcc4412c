//! Annotations `org.systemd.property.NAME: VALUE` -> properties of the unit.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::{Property, gvariant};
use crate::dbus::value::Value;

/// What such an annotation begins with.
pub(crate) const PREFIX: &str = "org.systemd.property.";

/// The properties that the annotations ask for, in the order of their names.
pub(crate) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        check_name(name).with_context(|| format!("annotation {key} name incorrect"))?;
        let property = property(name, text)
            .with_context(|| format!("annotation {key}={text} value parse error"))?;
        properties.push(property);
    }
    Ok(properties)
}

fn check_name(name: &str) -> Result<()> {
    if name.len() < 3 {
        bail!("too short");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        bail!("contains non-alphabetic character");
    }
    Ok(())
}

/// The manual names times in seconds (`TimeoutStopSec`); on the bus they are in microseconds and
/// named so.
fn property(name: &str, text: &str) -> Result<Property> {
    let value = gvariant::parse(text)?;
    let stem =
        name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match stem {
        None => Ok(Property { name: name.to_owned(), value }),
        Some(stem) => Ok(Property {
            name: format!("{stem}USec"),
            value: Value::Uint64(microseconds(&value)?),
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked against the range just before"
)]
fn microseconds(seconds: &Value) -> Result<u64> {
    let whole = match *seconds {
        Value::Byte(number) => i128::from(number),
        Value::Int16(number) => i128::from(number),
        Value::Uint16(number) => i128::from(number),
        Value::Int32(number) => i128::from(number),
        Value::Uint32(number) => i128::from(number),
        Value::Int64(number) => i128::from(number),
        Value::Uint64(number) => i128::from(number),
        Value::Double(number) => {
            let microseconds = number * 1e6;
            if !(0.0..1.8e19).contains(&microseconds) {
                bail!("{number} seconds are out of range");
            }
            return Ok(microseconds as u64);
        }
        _ => bail!("not a number"),
    };
    u64::try_from(whole * 1_000_000).with_context(|| format!("{whole} seconds are out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Vec<Property>> {
        properties(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn annotations_become_properties() {
        let annotations = BTreeMap::from(
            [
                ("other", "x"),
                ("org.systemd.property.TimeoutStopUSec", "uint64 123456789"),
                ("org.systemd.property.TimeoutStopSec", "5"),
                ("org.systemd.property.RuntimeMaxSec", "2.5"),
                ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
                ("org.systemd.property.DevSec", "1"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let found = properties(&annotations).unwrap();
        let expected = [
            Property::new("CollectMode", Value::string("inactive-or-failed")),
            Property::new("DevUSec", Value::Uint64(1_000_000)),
            Property::new("RuntimeMaxUSec", Value::Uint64(2_500_000)),
            Property::new("TimeoutStopUSec", Value::Uint64(5_000_000)),
            Property::new("TimeoutStopUSec", Value::Uint64(123_456_789)),
        ];
        assert_eq!(found, expected);
        // Not a time: nothing in front, or an abbreviation.
        assert_eq!(one("org.systemd.property.Sec", "1").unwrap()[0].name, "Sec");
        assert_eq!(one("org.systemd.property.ASec", "1").unwrap()[0].name, "ASec");
    }

    #[test]
    fn wrong_annotations_are_quoted() {
        for (key, value, text) in [
            ("org.systemd.property.Or", "1", "name incorrect: too short"),
            ("org.systemd.property.Or-x", "1", "name incorrect: contains non-alphabetic character"),
            ("org.systemd.property.TimeoutStopSec", "'a'", "='a' value parse error: not a number"),
            ("org.systemd.property.TimeoutStopSec", "-1", "-1 seconds are out of range"),
            ("org.systemd.property.Some", "[1", "value parse error: "),
        ] {
            let error = format!("{:#}", one(key, value).unwrap_err());
            assert!(error.starts_with(&format!("annotation {key}")), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }
}
