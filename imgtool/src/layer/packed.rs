//! Layers that come ready packed, as a tar archive: stored as they are, once
//! it is sure that they are archives.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result};

use super::compress::{self, BUFFER};
use super::tar::Reader;
use crate::digest::{Algorithm, Digest, HashingReader};
use crate::manifest::{Descriptor, media_type};
use crate::store::Store;

/// Stores an archive, compressed or not, as a layer; gives its blob and its diff ID. The caller
/// holds the store's lock.
pub(crate) fn store_archive(
    store: &Store,
    input: impl Read + Send,
) -> Result<(Descriptor, Digest)> {
    let mut writer = store.blob_writer()?;
    let mut input = BufReader::with_capacity(BUFFER, input);
    // Layers are not to be had in every form.
    if compress::is_for_archives(input.fill_buf().context("read the archive")?) {
        let mut plain = compress::reader(input)?;
        io::copy(&mut plain, &mut writer).context("store the archive")?;
    } else {
        io::copy(&mut input, &mut writer).context("store the archive")?;
    }
    let staged = writer.finish();
    let mut start = [0; 4];
    let n = staged.open()?.take(4).read(&mut start).context("read the archive")?;
    let kind = match &start[..n] {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    let plain = compress::reader(BufReader::with_capacity(BUFFER, staged.open()?))?;
    let hashed = HashingReader::new(plain, Algorithm::Sha256);
    let mut hashed = BufReader::with_capacity(BUFFER, hashed);
    let mut archive = Reader::new(&mut hashed);
    while archive.next_entry().context("it is no tar archive")?.is_some() {}
    io::copy(&mut hashed, &mut io::sink()).context("read the archive")?;
    let (diff_id, _) = hashed.into_inner().finish();
    let (digest, size) = staged.commit()?;
    Ok((Descriptor::new(kind, digest, size), diff_id))
}
