//! What refers to an image, in registries that list it themselves and in others.

use serde_json::{Value, json};

use super::copy::{INDEX, MANIFEST, copy};
use super::{Cmd, scene};
use crate::harness::hostile::{Content, Hostile, Request, reply};
use crate::harness::image::digest;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};

/// A manifest of this type that is about `subject`; its one blob is the empty document.
fn about(subject: &[u8], kind: &str) -> Vec<u8> {
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"),
        "size": 2 });
    let subject = json!({ "mediaType": MANIFEST, "digest": digest(subject),
        "size": subject.len() });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": empty,
        "layers": [empty], "subject": subject, "annotations": { "of": kind } })
    .to_string()
    .into_bytes()
}

fn entry(referrer: &[u8], kind: &str) -> Value {
    json!({ "mediaType": MANIFEST, "digest": digest(referrer), "size": referrer.len(),
        "artifactType": kind, "annotations": { "of": kind } })
}

/// The list that stands under the tag made of a digest.
fn list(registry: &Registry, repository: &str, subject: &str) -> Value {
    let tag = subject.replace(':', "-");
    let raw = Cmd::line("skopeo inspect --raw --tls-verify=false");
    let place = format!("docker://{}/{repository}:{tag}", registry.host);
    raw.arg(place).run().success().json()["manifests"].clone()
}

#[test]
fn a_registry_s_own_list_is_read_to_its_end_and_kept_by_tag_elsewhere() {
    scene(|scene| {
        let content = Content::new(vec![Tarball::of([Entry::file("x", "y")]).bytes()]);
        let image = content.manifest.clone();
        let (sbom, signature) = (about(&image, "x/sbom"), about(&image, "x/signature"));
        let subject = digest(&image);
        // Whoever signs what was signed is found, too.
        let witness = about(&sbom, "x/witness");
        let pages = [
            (subject.clone(), vec![entry(&sbom, "x/sbom")]),
            (subject.clone(), vec![entry(&signature, "x/signature")]),
            (digest(&sbom), vec![entry(&witness, "x/witness")]),
        ];
        let documents = [sbom.clone(), signature.clone(), witness.clone()];
        let answer = move |request: &Request, stream: &mut std::net::TcpStream| {
            let of = |digest: &str| request.path.contains(digest);
            if request.path.contains("/referrers/") {
                let second = request.path.contains("last=1");
                let found = pages.iter().filter(|(digest, _)| of(digest));
                let found: Vec<_> = found.map(|(_, entries)| entries).collect();
                let page = found.get(usize::from(second)).copied().cloned().unwrap_or_default();
                let next = format!("Link: <{}?last=1>; rel=\"next\"\r\n", request.path);
                let more = if found.len() > 1 && !second { next } else { String::new() };
                let headers = format!("Content-Type: {INDEX}\r\n{more}");
                let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": page });
                return reply(stream, "200 OK", &headers, index.to_string().as_bytes());
            }
            if request.path.ends_with(&digest(b"{}")) {
                return reply(stream, "200 OK", "", b"{}");
            }
            match documents.iter().find(|document| of(&digest(document))) {
                Some(document) => {
                    let headers = format!("Content-Type: {MANIFEST}\r\n");
                    reply(stream, "200 OK", &headers, document);
                }
                // No signatures by tag.
                None if request.path.contains("/manifests/sha256-") => {
                    reply(stream, "404 Not Found", "", b"");
                }
                None => content.answer(request, stream),
            }
        };
        let source = Hostile::start(answer);
        let registry = Registry::start(scene);
        let from = format!("docker://{}", source.name());
        let to = format!("docker://{}/lib/signed:1", registry.host);
        assert_eq!(copy(scene, &["--referrers", &from, &to]), subject);
        let both = json!([entry(&sbom, "x/sbom"), entry(&signature, "x/signature")]);
        assert_eq!(list(&registry, "lib/signed", &subject), both);
        let witnesses = json!([entry(&witness, "x/witness")]);
        assert_eq!(list(&registry, "lib/signed", &digest(&sbom)), witnesses);

        // From a registry that has the lists by tag to another repository; one that is pushed by
        // itself is added to the list that is there.
        let again = format!("docker://{}/lib/again:1", registry.host);
        copy(scene, &["--referrers", &to, &again]);
        assert_eq!(list(&registry, "lib/again", &subject), both);
        let alone = format!("docker://{}/lib/alone", registry.host);
        for referrer in [&sbom, &signature, &sbom] {
            let from = format!("docker://{}/lib/signed@{}", registry.host, digest(referrer));
            copy(scene, &[&from, &format!("{alone}:referrer")]);
        }
        assert_eq!(list(&registry, "lib/alone", &subject), both);
    });
}
