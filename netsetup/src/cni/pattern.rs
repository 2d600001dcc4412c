//! The regular expressions of an allow list, as far as such lists use them: text, `.`, classes in
//! brackets, `\` before a byte that stands for itself, `*`, `+` and `?` behind one of these, `^` and
//! `$` at the ends.

/// Whether `text` holds a match of `pattern`. One that we can't read matches nothing.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, from_start) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, to_end) = match pattern.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => (rest, true),
        _ => (pattern, false),
    };
    let Some(parts) = parts(pattern.as_bytes()) else { return false };
    let starts = if from_start { 0..=0 } else { 0..=text.len() };
    starts.into_iter().any(|start| {
        text.as_bytes().get(start..).is_some_and(|text| at_start(&parts, text, to_end))
    })
}

#[derive(Debug)]
struct Part {
    class: Class,
    least: usize,
    most: usize,
}

#[derive(Debug)]
enum Class {
    Any,
    Byte(u8),
    /// Ranges, and whether they are those that do not match.
    OneOf(Vec<(u8, u8)>, bool),
}

impl Class {
    fn has(&self, byte: u8) -> bool {
        match self {
            Class::Any => true,
            Class::Byte(own) => *own == byte,
            Class::OneOf(ranges, negated) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *negated
            }
        }
    }
}

fn parts(mut pattern: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((first, rest)) = pattern.split_first() {
        let class;
        (class, pattern) = match first {
            b'.' => (Class::Any, rest),
            b'\\' => {
                let (escaped, rest) = rest.split_first()?;
                // `\d` and its like would be taken for letters.
                (Class::Byte(*escaped).into_literal()?, rest)
            }
            b'[' => bracket(rest)?,
            b'(' | b')' | b'|' | b'{' | b'*' | b'+' | b'?' | b'^' | b'$' => return None,
            byte => (Class::Byte(*byte), rest),
        };
        let (least, most) = match pattern.first() {
            Some(b'*') => (0, usize::MAX),
            Some(b'+') => (1, usize::MAX),
            Some(b'?') => (0, 1),
            _ => (1, 1),
        };
        if (least, most) != (1, 1) {
            pattern = pattern.get(1..)?;
        }
        parts.push(Part { class, least, most });
    }
    Some(parts)
}

impl Class {
    fn into_literal(self) -> Option<Class> {
        match self {
            Class::Byte(byte) if byte.is_ascii_alphanumeric() => None,
            other => Some(other),
        }
    }
}

fn bracket(rest: &[u8]) -> Option<(Class, &[u8])> {
    let end = rest.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (inside, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    let (mut inside, negated) = match inside.strip_prefix(b"^") {
        Some(inside) => (inside, true),
        None => (inside, false),
    };
    let mut ranges = Vec::new();
    while let Some((first, rest)) = inside.split_first() {
        match rest {
            [b'-', last, rest @ ..] => {
                ranges.push((*first, *last));
                inside = rest;
            }
            rest => {
                ranges.push((*first, *first));
                inside = rest;
            }
        }
    }
    Some((Class::OneOf(ranges, negated), rest))
}

fn at_start(parts: &[Part], text: &[u8], to_end: bool) -> bool {
    let Some((part, rest)) = parts.split_first() else { return !to_end || text.is_empty() };
    let run = text.iter().take(part.most).take_while(|byte| part.class.has(**byte)).count();
    (part.least..=run)
        .rev()
        .any(|count| text.get(count..).is_some_and(|text| at_start(rest, text, to_end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_match_what_they_name() {
        let pattern = r"^net\.ipv4\.conf\.[a-z0-9]*\.arp_[a-z]+$";
        assert!(matches(pattern, "net.ipv4.conf.eth0.arp_notify"));
        assert!(!matches(pattern, "net.ipv4.conf.eth0.arp_"));
        assert!(!matches(pattern, "net.ipv4.conf.eth0.rp_filter"));
        assert!(!matches(pattern, "xnet.ipv4.conf.eth0.arp_notify"));
        assert!(matches("net.core.*", "net.core.somaxconn"));
        assert!(matches("[^x]omaxconn$", "net.core.somaxconn"));
        assert!(!matches("^net$", "net.core"));
        assert!(!matches("(a|b)", "a"));
    }
}
