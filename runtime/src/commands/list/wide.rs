//! `list -f wide`: what `docker ps -a` shows.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Found;
use super::filter::{self, Filter, Key};
use super::fit::{self, Cut};
use crate::clock;
use crate::records::standing::{self, Standing};
use crate::records::{self, health, names};
use crate::state::{self, StateStore, Status};

/// A longer command line is cut.
const COMMAND_WIDTH: usize = 20;

/// What a narrow terminal does without: of the command, the image, the ports, the name, the times.
const CUTS: [Cut; 6] = [
    Cut { column: 2, least: 9 },
    Cut { column: 1, least: 12 },
    Cut { column: 5, least: 7 },
    Cut { column: 6, least: 10 },
    Cut { column: 3, least: 10 },
    Cut { column: 4, least: 11 },
];

/// One container as people see it.
pub(super) struct Row<'a> {
    one: &'a Found,
    standing: Option<Standing>,
    image: &'a str,
    command: Vec<String>,
    created: &'a str,
    name: String,
    ports: String,
    exit_code: Option<u8>,
}

impl<'a> Row<'a> {
    pub(super) fn new(one: &'a Found, store: &StateStore) -> Self {
        let annotations = one.live.as_ref().map(state::Record::annotations).unwrap_or_default();
        let annotation = |key: &str| annotations.get(key).copied();
        let standing = match (&one.live, &one.kept) {
            (_, Some(kept)) => standing::of(kept, store).ok(),
            (Some(live), None) => match state::status(store, live).ok() {
                Some(Status::Stopped) => Some(Standing::Exited),
                other => other.map(Standing::Alive),
            },
            (None, None) => None,
        };
        let (created, kept_command) = match (&one.live, &one.kept) {
            (_, Some(kept)) => (kept.created.as_str(), Some(kept.command.clone())),
            (Some(live), None) => (live.created.as_str(), None),
            (None, None) => ("", None),
        };
        let alive = matches!(standing, Some(Standing::Alive(_)));
        let spec = alive.then(|| store.load_spec(&one.id).ok()).flatten();
        let from_spec = || Some(spec.as_ref()?.process.as_ref()?.args.clone());
        Row {
            one,
            standing,
            image: match &one.kept {
                Some(kept) => kept.image(),
                None => annotation("org.imgtool.image").unwrap_or_default(),
            },
            command: kept_command.or_else(from_spec).unwrap_or_default(),
            created,
            name: match (&one.kept, &one.live) {
                (Some(kept), _) => kept.name.clone(),
                (None, Some(live)) => names::of(live),
                (None, None) => String::new(),
            },
            ports: spec.as_ref().map(ports).unwrap_or_default(),
            exit_code: one.kept.as_ref().and_then(|kept| kept.life.exit_code),
        }
    }

    pub(super) fn matches(&self, filters: &[Filter]) -> bool {
        filter::all(filters, |Filter { key, value }| match key {
            Key::Id => self.one.id.starts_with(value.as_str()),
            Key::Name => self.name.contains(value.as_str()),
            Key::Image => is_image(self.image, value),
            Key::Status => self.standing.is_some_and(|standing| word(standing) == value),
            Key::Exited => {
                self.standing == Some(Standing::Exited)
                    && self.exit_code.is_some_and(|code| code.to_string() == *value)
            }
            Key::Health => self.health().map_or("none", health::Word::text) == value,
            Key::Label => self.has_label(value),
        })
    }

    /// Only of one that runs is there anything to say.
    fn health(&self) -> Option<health::Word> {
        let runs = self.standing == Some(Standing::Alive(Status::Running));
        self.one.health.filter(|_| runs)
    }

    fn has_label(&self, wanted: &str) -> bool {
        let (key, value) = match wanted.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (wanted, None),
        };
        let found = match (&self.one.kept, &self.one.live) {
            (Some(kept), _) => kept.annotations.get(key).map(String::as_str),
            (None, Some(live)) => live.annotations().get(key).copied(),
            (None, None) => None,
        };
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    }

    fn status(&self, now: u64) -> String {
        match (&self.one.kept, self.standing) {
            (Some(kept), Some(standing)) => {
                let text = standing::describe(kept, standing, now);
                text + self.health().map_or("", health::Word::suffix)
            }
            (None, Some(Standing::Exited)) => "Exited".to_owned(),
            (None, Some(Standing::Alive(Status::Created))) => "Created".to_owned(),
            (None, Some(Standing::Alive(status))) => {
                let up = format!("Up {}", age(self.created, now));
                if status == Status::Paused { up + " (Paused)" } else { up }
            }
            _ => "Unknown".to_owned(),
        }
    }

    fn cells(&self, now: u64) -> [String; 7] {
        [
            records::short(&self.one.id).to_owned(),
            if self.image.is_empty() { "-".to_owned() } else { familiar(self.image).to_owned() },
            shown_command(&self.command),
            format!("{} ago", age(self.created, now)),
            self.status(now),
            self.ports.clone(),
            self.name.clone(),
        ]
    }
}

/// The table; for a terminal of this width, if that is where it goes.
pub(super) fn text(found: &[Found], store: &StateStore, width: Option<usize>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let mut rows: Vec<Row> = found.iter().map(|one| Row::new(one, store)).collect();
    // The newest first, as docker has them.
    rows.sort_by(|a, b| b.created.cmp(a.created));
    let lines = rows.iter().map(|row| row.cells(now));
    let lines = std::iter::once(header.map(str::to_owned)).chain(lines).collect();
    fit::columns(lines, width, &CUTS)
}

/// `status=` of the filter.
fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Alive(Status::Created | Status::Creating) => "created",
        Standing::Alive(Status::Paused) => "paused",
        Standing::Alive(_) => "running",
        Standing::Restarting => "restarting",
        Standing::Changing | Standing::Exited => "exited",
    }
}

fn age(time: &str, now: u64) -> String {
    clock::age(now.saturating_sub(clock::parse_seconds(time).unwrap_or(now)))
}

/// As people write it, and docker shows it.
fn familiar(image: &str) -> &str {
    let bare = image.strip_prefix("docker.io/").unwrap_or(image);
    bare.strip_prefix("library/").filter(|_| bare.len() < image.len()).unwrap_or(bare)
}

/// With or without its tag or digest, its registry and the library's name.
fn is_image(image: &str, wanted: &str) -> bool {
    let without_tag = |text: &'_ str| {
        let text = text.split('@').next().unwrap_or_default().to_owned();
        match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name.to_owned(),
            _ => text,
        }
    };
    let bare = without_tag(image);
    let ends = |whole: &str| whole == wanted || whole.ends_with(&format!("/{wanted}"));
    ends(image) || ends(&bare)
}

fn shown_command(words: &[String]) -> String {
    let line = words.join(" ").replace(char::is_control, " ");
    if line.chars().count() <= COMMAND_WIDTH {
        return format!("\"{line}\"");
    }
    let cut: String = line.chars().take(COMMAND_WIDTH - 1).collect();
    format!("\"{cut}…\"")
}

/// What the hook that makes the network was told to publish.
fn ports(spec: &crate::spec::Spec) -> String {
    let hooks = spec.hooks.iter().flat_map(|hooks| &hooks.create_runtime);
    let mut shown = Vec::new();
    for hook in hooks {
        let words = hook.args().clone().unwrap_or_default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--publish" {
                shown.extend(words.next().map(|port| shown_port(port)));
            }
        }
    }
    shown.join(", ")
}

/// `8080:80/tcp` becomes `0.0.0.0:8080->80/tcp`.
fn shown_port(publish: &str) -> String {
    let (ports, protocol) = publish.split_once('/').unwrap_or((publish, "tcp"));
    match ports.rsplit_once(':') {
        None => format!("{ports}/{protocol}"),
        Some((host, inside)) if host.contains(':') => format!("{host}->{inside}/{protocol}"),
        Some((host, inside)) => format!("0.0.0.0:{host}->{inside}/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_any_end_of_its_name() {
        let image = "docker.io/library/hello:latest";
        for wanted in ["hello", "hello:latest", "library/hello", image] {
            assert!(is_image(image, wanted), "{wanted}");
        }
        for wanted in ["ello", "hello:v1", "lo:latest"] {
            assert!(!is_image(image, wanted), "{wanted}");
        }
    }

    #[test]
    fn images_are_shown_as_people_write_them() {
        for (image, shown) in [
            ("docker.io/library/hello:latest", "hello:latest"),
            ("docker.io/me/hello:1", "me/hello:1"),
            ("localhost:5000/library/hello", "localhost:5000/library/hello"),
            ("sha256:abc", "sha256:abc"),
        ] {
            assert_eq!(familiar(image), shown);
        }
    }

    #[test]
    fn long_commands_are_cut_and_ports_are_dockers() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(shown_command(&words("sh -c true")), "\"sh -c true\"");
        assert_eq!(shown_command(&words("sleep 1000000000000000")), "\"sleep 1000000000000…\"");
        assert_eq!(shown_port("8080:80/tcp"), "0.0.0.0:8080->80/tcp");
        assert_eq!(shown_port("127.0.0.1:53:53/udp"), "127.0.0.1:53->53/udp");
        assert_eq!(shown_port("80"), "80/tcp");
    }
}
