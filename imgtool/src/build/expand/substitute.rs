//! What `#`, `%` and `/` in `${…}` do to a value.

/// One letter of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Letter(char),
    One,
    Many,
}

pub(super) fn part(letter: char, literal: bool) -> Part {
    match letter {
        '*' if !literal => Part::Many,
        '?' if !literal => Part::One,
        letter => Part::Letter(letter),
    }
}

/// The value without the beginning, or else the end, that matches.
pub(super) fn without(value: &str, pattern: &[Part], beginning: bool, longest: bool) -> String {
    let letters: Vec<char> = value.chars().collect();
    let length = letters.len();
    let mut cuts: Vec<usize> = (0..=length).collect();
    // From the cut that takes least to the one that takes most, or the other way.
    if beginning == longest {
        cuts.reverse();
    }
    for cut in cuts {
        let (taken, kept) = match beginning {
            true => (&letters[..cut], &letters[cut..]),
            false => (&letters[cut..], &letters[..cut]),
        };
        if matches(pattern, taken) {
            return kept.iter().collect();
        }
    }
    value.to_owned()
}

/// The value with the first, or every, longest match replaced.
pub(super) fn replaced(value: &str, pattern: &[Part], replacement: &str, all: bool) -> String {
    let letters: Vec<char> = value.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut done = false;
    while at < letters.len() {
        let end = match done {
            true => None,
            // An empty match replaces nothing.
            false => {
                (at + 1..=letters.len()).rev().find(|end| matches(pattern, &letters[at..*end]))
            }
        };
        match end {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                done = !all;
            }
            None => {
                out.push(letters[at]);
                at += 1;
            }
        }
    }
    out
}

/// Whether the pattern matches all of the text, by going back to the last star alone.
fn matches(pattern: &[Part], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Part::Many) => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(Part::One) => {}
            Some(Part::Letter(letter)) if *letter == text[t] => {}
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                    continue;
                }
                None => return false,
            },
        }
        p += 1;
        t += 1;
    }
    pattern[p..].iter().all(|part| *part == Part::Many)
}
