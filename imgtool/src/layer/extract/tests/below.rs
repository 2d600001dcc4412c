//! Layers made at random, unpacked from the top down and from the bottom up: equal trees.

use std::collections::BTreeMap;

use super::*;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn path(&mut self) -> String {
        let names = (0..=self.below(3)).map(|_| ["a", "b", "c"][self.below(3)]);
        names.collect::<Vec<_>>().join("/")
    }

    fn entry(&mut self, layer: usize) -> Entry {
        let path = self.path();
        let mut entry = match self.below(16) {
            0..4 => dir(&path),
            4..10 => file(&path),
            10 => link(Kind::Symlink, &path, ["a", "b/c", "/c", "nowhere"][self.below(4)]),
            11 => link(Kind::HardLink, &path, &self.path()),
            12 => Entry::new(path.into_bytes(), Kind::Fifo, 0o600),
            13 => marker(&format!("{path}/.wh..wh..opq")),
            _ => match path.rsplit_once('/') {
                Some((parent, name)) => marker(&format!("{parent}/.wh.{name}")),
                None => marker(&format!(".wh.{path}")),
            },
        };
        entry.mtime.seconds = i64::try_from(layer * 100 + self.below(50)).unwrap();
        if entry.kind == Kind::Directory {
            entry.mode = [0o755, 0o700, 0o1777][self.below(3)];
        }
        entry
    }
}

fn told(entry: &Entry) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?} {} {}", entry.kind, text(&entry.path), text(&entry.link))
}

/// All that is to be seen of a tree, by path; files with several names by the first of these.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let (mut names, mut all, mut firsts) = (vec![String::new()], BTreeMap::new(), BTreeMap::new());
    walk(root, "", &mut names);
    names.sort();
    for name in names {
        let path = root.join(&name);
        let stat = std_fs::symlink_metadata(&path).unwrap();
        let first = match stat.is_dir() {
            true => &name,
            false => &*firsts.entry(stat.ino()).or_insert_with(|| name.clone()),
        };
        let contents = match stat.file_type() {
            kind if kind.is_file() => std_fs::read_to_string(&path).unwrap(),
            kind if kind.is_symlink() => format!("{:?}", std_fs::read_link(&path).unwrap()),
            _ => String::new(),
        };
        let line = format!("{first} {:o} {} {contents}", stat.mode(), stat.mtime());
        all.insert(name, line);
    }
    all
}

/// `None` where the bottom layers have to come first.
fn from_the_top(root: BorrowedFd<'_>, layers: &[Vec<u8>]) -> Option<Result<()>> {
    let mut extractor = Extractor::new(root, Target::Below).unwrap();
    for layer in layers.iter().rev() {
        match extractor.archive(&mut &layer[..]) {
            Err(error) if error.downcast_ref::<OutOfOrder>().is_some() => return None,
            Err(error) => return Some(Err(error)),
            Ok(()) => {}
        }
    }
    Some(extractor.finish().map(drop))
}

fn from_the_bottom(root: BorrowedFd<'_>, layers: &[Vec<u8>]) -> Result<()> {
    layers.iter().try_for_each(|layer| extract(&mut &layer[..], root, Target::Flat).map(drop))
}

#[test]
fn layers_unpacked_from_the_top_give_what_they_give_from_the_bottom() {
    let (mut compared, mut random) = (0, Random(1));
    for round in 0..800 {
        let count = 2 + random.below(3);
        let entries: Vec<Vec<Entry>> = (0..count)
            .map(|layer| {
                let count = 1 + random.below(6);
                (0..count).map(|_| random.entry(layer)).collect()
            })
            .collect();
        let layers: Vec<Vec<u8>> = entries.iter().map(|layer| archive(layer)).collect();
        let (up, down) = (tree(), tree());
        for tree in [&up, &down] {
            crate::layer::lower::reset_root(tree.root().as_fd()).unwrap();
        }
        let bottom = from_the_bottom(up.root().as_fd(), &layers);
        let Some(top) = from_the_top(down.root().as_fd(), &layers) else { continue };
        let text = |layer: &Vec<Entry>| layer.iter().map(told).collect::<Vec<_>>();
        let told: Vec<_> = entries.iter().map(text).collect();
        // What makes a layer wrong by itself may be hidden from the top.
        if bottom.is_err() {
            continue;
        }
        top.unwrap_or_else(|error| panic!("round {round}: {error:#}: {told:#?}"));
        assert_eq!(seen(&up.root), seen(&down.root), "round {round}: {told:#?}");
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}
