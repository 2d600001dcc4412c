//! Variables in instructions, replaced as a shell would: quotes, escapes and the operators of
//! `${…}`. What stands in single quotes or behind the escape character is literal.

mod substitute;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Result, bail, ensure};

/// What variables are, and how they are escaped.
pub(crate) struct Expander<'a> {
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Names that were asked for and are not set.
    unset: RefCell<BTreeSet<String>>,
    used: RefCell<BTreeSet<String>>,
}

/// A letter, and whether it is protected from being a separator between words.
type Letter = (char, bool);

impl<'a> Expander<'a> {
    pub(crate) fn new(escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { escape, lookup, unset: RefCell::default(), used: RefCell::default() }
    }

    /// The text as one word, without its quotes.
    pub(crate) fn word(&self, text: &str) -> Result<String> {
        Ok(self.letters(text)?.into_iter().map(|(letter, _)| letter).collect())
    }

    /// The text as words; what a variable brings is split as well.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>> {
        let letters = self.letters(text)?;
        let words = letters.split(|(letter, quoted)| !quoted && letter.is_whitespace());
        Ok(words
            .filter(|word| !word.is_empty())
            .map(|word| word.iter().map(|(letter, _)| *letter).collect())
            .collect())
    }

    /// The body of a file: variables are replaced, and quotes are nothing special.
    pub(crate) fn body(&self, text: &str) -> Result<String> {
        let mut input = Input { letters: text.chars().peekable(), whole: text };
        let mut out = Vec::new();
        while let Some(letter) = input.letters.next() {
            match letter {
                '$' => out.extend(self.dollar(&mut input, true)?),
                _ if letter == self.escape => match input.letters.peek() {
                    Some('$') => out.extend(input.letters.next().map(|next| (next, true))),
                    Some(next) if *next == self.escape => {
                        out.extend(input.letters.next().map(|next| (next, true)));
                    }
                    _ => out.push((letter, true)),
                },
                _ => out.push((letter, true)),
            }
        }
        Ok(out.into_iter().map(|(letter, _)| letter).collect())
    }

    /// The names that were not set when they were asked for.
    pub(crate) fn unset(&self) -> BTreeSet<String> {
        self.unset.take()
    }

    /// The names that were asked for.
    pub(crate) fn used(&self) -> BTreeSet<String> {
        self.used.take()
    }

    fn letters(&self, text: &str) -> Result<Vec<Letter>> {
        let mut input = Input { letters: text.chars().peekable(), whole: text };
        self.until(&mut input, None)
    }

    /// Up to the letter `stop`, which is consumed, or to the end.
    fn until(&self, input: &mut Input<'_>, stop: Option<char>) -> Result<Vec<Letter>> {
        let mut out = Vec::new();
        while let Some(letter) = input.letters.next() {
            if Some(letter) == stop {
                return Ok(out);
            }
            match letter {
                '\'' => self.single_quoted(input, &mut out)?,
                '"' => self.double_quoted(input, &mut out)?,
                '$' => out.extend(self.dollar(input, false)?),
                _ if letter == self.escape => {
                    out.extend(input.letters.next().map(|next| (next, true)));
                }
                _ => out.push((letter, false)),
            }
        }
        match stop {
            Some(stop) => bail!("unexpected end of {:?}: looking for {stop:?}", input.whole),
            None => Ok(out),
        }
    }

    fn single_quoted(&self, input: &mut Input<'_>, out: &mut Vec<Letter>) -> Result<()> {
        loop {
            match input.letters.next() {
                Some('\'') => return Ok(()),
                Some(letter) => out.push((letter, true)),
                None => bail!("unexpected end of {:?}: a single quote is open", input.whole),
            }
        }
    }

    fn double_quoted(&self, input: &mut Input<'_>, out: &mut Vec<Letter>) -> Result<()> {
        loop {
            match input.letters.next() {
                Some('"') => return Ok(()),
                Some('$') => out.extend(self.dollar(input, true)?),
                Some(letter) if letter == self.escape => match input.letters.next() {
                    Some(next) if matches!(next, '"' | '$') || next == self.escape => {
                        out.push((next, true));
                    }
                    Some(next) => out.extend([(letter, true), (next, true)]),
                    None => bail!("unexpected end of {:?}: a double quote is open", input.whole),
                },
                Some(letter) => out.push((letter, true)),
                None => bail!("unexpected end of {:?}: a double quote is open", input.whole),
            }
        }
    }

    /// What stands after a dollar.
    fn dollar(&self, input: &mut Input<'_>, quoted: bool) -> Result<Vec<Letter>> {
        let marked = |text: &str| text.chars().map(|letter| (letter, quoted)).collect();
        if input.letters.peek() != Some(&'{') {
            let name = name(input);
            if name.is_empty() {
                return Ok(vec![('$', true)]);
            }
            return Ok(marked(&self.get(&name).unwrap_or_default()));
        }
        input.letters.next();
        let name = name(input);
        ensure!(!name.is_empty(), "syntax error in {:?}: bad substitution", input.whole);
        let Some(operator) = input.letters.next() else {
            bail!("syntax error in {:?}: missing '}}'", input.whole)
        };
        if operator == '}' {
            return Ok(marked(&self.get(&name).unwrap_or_default()));
        }
        Ok(marked(&self.operator(input, &name, operator)?))
    }

    fn operator(&self, input: &mut Input<'_>, name: &str, operator: char) -> Result<String> {
        let text = |letters: Vec<Letter>| -> String {
            letters.into_iter().map(|(letter, _)| letter).collect()
        };
        // Which forms take an empty value for none.
        let (operator, colon) = match operator {
            ':' => (input.letters.next().unwrap_or('}'), true),
            other => (other, false),
        };
        let quiet = || (self.lookup)(name);
        match operator {
            '-' | '+' | '?' => {
                self.used.borrow_mut().insert(name.to_owned());
                let word = text(self.until(input, Some('}'))?);
                let value = quiet().filter(|value| !(colon && value.is_empty()));
                match (operator, value) {
                    ('-', value) => Ok(value.unwrap_or(word)),
                    ('+', value) => Ok(value.map_or(String::new(), |_| word)),
                    (_, Some(value)) => Ok(value),
                    (_, None) if word.is_empty() => {
                        let what = if colon { "empty" } else { "unset" };
                        bail!("{name}: is not allowed to be {what}")
                    }
                    (_, None) => bail!("{name}: {word}"),
                }
            }
            '#' | '%' if !colon => {
                let longest = input.letters.next_if_eq(&operator).is_some();
                let pattern = self.pattern(input, '}')?;
                let value = self.get(name).unwrap_or_default();
                Ok(substitute::without(&value, &pattern, operator == '#', longest))
            }
            '/' if !colon => {
                let all = input.letters.next_if_eq(&'/').is_some();
                let pattern = self.pattern(input, '/')?;
                let replacement = text(self.until(input, Some('}'))?);
                let value = self.get(name).unwrap_or_default();
                Ok(substitute::replaced(&value, &pattern, &replacement, all))
            }
            other => {
                let colon = if colon { ":" } else { "" };
                bail!("unsupported modifier ({colon}{other}) in substitution {:?}", input.whole)
            }
        }
    }

    /// A pattern: what is quoted or escaped in it is literal.
    fn pattern(&self, input: &mut Input<'_>, stop: char) -> Result<Vec<substitute::Part>> {
        let letters = self.until(input, Some(stop))?;
        Ok(letters.into_iter().map(|(letter, literal)| substitute::part(letter, literal)).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        self.used.borrow_mut().insert(name.to_owned());
        let value = (self.lookup)(name);
        if value.is_none() {
            self.unset.borrow_mut().insert(name.to_owned());
        }
        value
    }
}

struct Input<'a> {
    letters: Peekable<Chars<'a>>,
    whole: &'a str,
}

/// A variable's name; digits alone are one too.
fn name(input: &mut Input<'_>) -> String {
    let mut name = String::new();
    let digits = input.letters.peek().is_some_and(char::is_ascii_digit);
    while let Some(letter) = input.letters.next_if(|letter| {
        letter.is_ascii_digit() || (!digits && (letter.is_ascii_alphabetic() || *letter == '_'))
    }) {
        name.push(letter);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "a" => "alpha",
            "empty" => "",
            "path" => "/usr/lib/libfoo.so.1.2",
            "two" => "one two",
            "star" => "a*b*c",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn word(text: &str) -> String {
        let expander = Expander::new('\\', &lookup);
        expander.word(text).unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn every_operator_does_what_a_shell_does() {
        for (text, expected) in [
            ("x", "x"),
            ("$a", "alpha"),
            ("${a}b$a", "alphabalpha"),
            ("$none|", "|"),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a\\\"\\x\"", "alpha\"\\x"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("$.", "$."),
            ("${none-w}", "w"),
            ("${empty-w}", ""),
            ("${empty:-w}", "w"),
            ("${a:-w}", "alpha"),
            ("${a+w}", "w"),
            ("${empty+w}", "w"),
            ("${empty:+w}", ""),
            ("${none:+w}", ""),
            ("${a?x}", "alpha"),
            ("${none:-${a:-x}}", "alpha"),
            ("${none:-\"q $a\"}", "q alpha"),
            ("${path#*/}", "usr/lib/libfoo.so.1.2"),
            ("${path##*/}", "libfoo.so.1.2"),
            ("${path%.*}", "/usr/lib/libfoo.so.1"),
            ("${path%%.*}", "/usr/lib/libfoo"),
            ("${a#alpha}", ""),
            ("${a%alpha}", ""),
            ("${a#?}", "lpha"),
            ("${a/a/A}", "Alpha"),
            ("${a//a/A}", "AlphA"),
            ("${a//a/}", "lph"),
            ("${path/l*b/X}", "/usr/Xfoo.so.1.2"),
            ("${star//\\*/-}", "a-b-c"),
            ("${star#a\\*}", "b*c"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
        for text in ["${none?}", "${empty:?gone}", "${a", "'x", "\"x", "${}", "${a:x}", "${a!}"] {
            assert!(word(text).starts_with("error: "), "{text} gives {}", word(text));
        }
        assert_eq!(word("${empty:?gone}"), "error: empty: gone");
    }

    #[test]
    fn words_come_of_variables_too_unless_quoted() {
        let expander = Expander::new('\\', &lookup);
        assert_eq!(expander.words("x $two \"$two\"").unwrap(), ["x", "one", "two", "one two"]);
        assert_eq!(expander.words(" ${none} ").unwrap(), Vec::<String>::new());
        assert_eq!(expander.unset().into_iter().collect::<Vec<_>>(), ["none"]);
    }

    #[test]
    fn a_body_keeps_its_quotes() {
        let expander = Expander::new('`', &lookup);
        assert_eq!(expander.body("'$a' \"${a}\" `$a \\x").unwrap(), "'alpha' \"alpha\" $a \\x");
    }
}
