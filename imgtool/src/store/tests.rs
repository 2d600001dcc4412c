use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::manifest::{Manifest, media_type};
use crate::reference::Reference;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    (dir, store)
}

fn add_image(store: &Store, content: &str) -> Descriptor {
    let layer = store.write_blob(media_type::OCI_LAYER, content.as_bytes()).unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.digest
    );
    let config = store.write_blob(media_type::OCI_CONFIG, config.as_bytes()).unwrap();
    let manifest = Manifest::new(config, vec![layer]);
    store.write_blob(media_type::OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap().with_default_tag()
}

#[test]
fn a_store_is_private_and_a_layout() {
    let (_dir, store) = store();
    let mode = fs::metadata(store.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(fs::read_to_string(store.root().join("oci-layout")).unwrap(), LAYOUT);
    assert!(store.index().unwrap().manifests.is_empty());
}

#[test]
fn a_directory_with_other_things_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = Store::open(Some(dir.path())).unwrap_err();
    assert!(format!("{error:#}").contains("not an image store"));
    assert!(!dir.path().join("blobs").exists());
}

#[test]
fn names_ids_and_prefixes_find_the_image() {
    let (_dir, store) = store();
    let entry = add_image(&store, "one");
    store.tag(&name("busybox"), &entry).unwrap();
    let image = store.resolve("busybox").unwrap();
    assert_eq!(image.name, Some(name("busybox")));
    for word in [
        "docker.io/library/busybox:latest",
        &image.id().to_string(),
        image.id().short(),
        entry.digest.hex(),
        &format!("busybox@{}", entry.digest),
    ] {
        assert_eq!(store.resolve(word).unwrap().id(), image.id(), "{word}");
    }
    let error = store.resolve("other").unwrap_err();
    assert!(error.to_string().contains("imgtool pull other"));
}

#[test]
fn a_moved_tag_leaves_the_old_image_nameless() {
    let (_dir, store) = store();
    let (one, two) = (add_image(&store, "one"), add_image(&store, "two"));
    assert!(store.tag(&name("a"), &one).unwrap().is_none());
    assert!(store.tag(&name("a"), &one).unwrap().is_none());
    let old = store.tag(&name("a"), &two).unwrap().unwrap();
    assert_eq!(old.digest, one.digest);
    let index = store.index().unwrap();
    assert_eq!(index.manifests.len(), 2);
    let nameless = index.manifests.iter().find(|e| entry_name(e).is_none());
    assert_eq!(nameless.unwrap().digest, one.digest);
}

#[test]
fn garbage_goes_and_the_rest_stays() {
    let (_dir, store) = store();
    let (one, two) = (add_image(&store, "one"), add_image(&store, "two"));
    store.tag(&name("a"), &one).unwrap();
    store.tag(&name("b"), &two).unwrap();
    let chain = store.resolve("b").unwrap().diff_ids[0].clone();
    make_dir(&store.layers_dir().join(chain.hex()).join("diff")).unwrap();
    store.untag(&name("b")).unwrap();
    store.forget(&two).unwrap();
    let lock = store.lock_exclusive().unwrap();
    let removed = store.collect_garbage(&lock).unwrap();
    assert_eq!(removed.blobs.len(), 3);
    assert_eq!(removed.layers, [chain]);
    assert!(store.resolve("a").is_ok());
    assert!(store.resolve("b").is_err());
    assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
}

#[test]
fn blobs_of_another_digest_are_dropped() {
    let (_dir, store) = store();
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"x").unwrap();
    assert!(writer.commit_with_digest(&Digest::of(b"y")).is_err());
    assert!(!store.has_blob(&Digest::of(b"x")));
    assert_eq!(fs::read_dir(store.staging_dir()).unwrap().count(), 0);
}

#[test]
fn staging_of_the_dead_is_cleared() {
    let (_dir, store) = store();
    let staging = store.staging_dir();
    make_dir(&staging.join("dir-dead")).unwrap();
    fs::write(staging.join("blob-dead"), "x").unwrap();
    fs::write(staging.join("partial-sha256-aa"), "x").unwrap();
    let first = store.lock_shared().unwrap();
    let kept: Vec<_> = fs::read_dir(&staging).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, ["partial-sha256-aa"]);
    let second = store.lock_shared().unwrap();
    drop((first, second));
}

#[test]
fn damaged_documents_are_noticed() {
    let (_dir, store) = store();
    let entry = add_image(&store, "one");
    store.tag(&name("a"), &entry).unwrap();
    let path = store.blob_path(&entry.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] = b' ';
    fs::write(&path, bytes).unwrap();
    let error = store.resolve("a").unwrap_err();
    assert!(format!("{error:#}").contains("damaged"), "{error:#}");
}
