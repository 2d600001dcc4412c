use super::*;

/// A header of the ustar kind, fields given as they stand in the block.
fn header(name: &str, kind: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[TYPE] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len().next_multiple_of(BLOCK), 0);
    out
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let digits = if rest + 2 > 99 { 3 } else { 2 };
    format!("{:0digits$} {key}={value}\n", rest + digits)
}

fn extended(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let body: String = records.iter().map(|(key, value)| record(key, value)).collect();
    [&header("pax", kind, body.len() as u64)[..], &padded(body.as_bytes())].concat()
}

fn archive(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = parts.concat();
    out.extend_from_slice(&[0; 2 * BLOCK]);
    out
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut contents = Vec::new();
        reader.contents(|bytes| {
            contents.extend_from_slice(bytes);
            Ok(())
        })?;
        out.push((entry, contents));
    }
    Ok(out)
}

fn only(bytes: &[u8]) -> (Entry, Vec<u8>) {
    let mut entries = read(bytes).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn pax_size_wins_over_the_header_both_ways() {
    let smuggled = header("smuggled", b'0', 0);
    for size in [0, 512] {
        let bytes = archive(&[
            &extended(b'x', &[("size", "1024")]),
            &header("outer", b'0', size),
            &smuggled,
            &[0; BLOCK],
        ]);
        let (entry, contents) = only(&bytes);
        assert_eq!((&entry.path[..], entry.size, contents.len()), (&b"outer"[..], 1024, 1024));
    }
}

#[test]
fn global_records_hold_until_overridden() {
    let bytes = archive(&[
        &extended(b'g', &[("uid", "7"), ("gid", "8")]),
        &header("a", b'0', 0),
        &extended(b'x', &[("uid", "9"), ("gid", "")]),
        &header("b", b'0', 0),
        &header("c", b'0', 0),
    ]);
    let owners: Vec<_> = read(&bytes).unwrap().iter().map(|(e, _)| (e.uid, e.gid)).collect();
    assert_eq!(owners, [(7, 8), (9, 0), (7, 8)]);
}

#[test]
fn gnu_long_names_and_links() {
    let name = "n".repeat(150) + "\0";
    let link = "l".repeat(150) + "\0";
    let bytes = archive(&[
        &header("././@LongLink", b'K', 151),
        &padded(link.as_bytes()),
        &header("././@LongLink", b'L', 151),
        &padded(name.as_bytes()),
        &header("short", b'2', 0),
    ]);
    let (entry, _) = only(&bytes);
    assert_eq!(entry.path, "n".repeat(150).into_bytes());
    assert_eq!(entry.link, "l".repeat(150).into_bytes());
}

#[test]
fn base_256_numbers_positive_and_negative() {
    let mut block = header("f", b'0', 0);
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
    block[136..148].copy_from_slice(&[255; 12]);
    seal(&mut block);
    let (entry, _) = only(&archive(&[&block]));
    assert_eq!((entry.uid, entry.mtime.seconds), (3_000_000, -1));
    block[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    seal(&mut block);
    assert!(read(&archive(&[&block])).is_err());
}

#[test]
fn old_gnu_sparse_with_an_extension_block() {
    let mut block = header("s", b'S', 10);
    block[257..265].copy_from_slice(b"ustar  \0");
    let pair = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0");
    for index in 0..4u64 {
        let at = 386 + usize::try_from(index).unwrap() * 24;
        block[at..at + 24].copy_from_slice(pair(index * 1000, 2).as_bytes());
    }
    block[482] = 1;
    block[GNU_REAL_SIZE].copy_from_slice(format!("{:011o}\0", 9000).as_bytes());
    seal(&mut block);
    let mut more = [0; BLOCK];
    more[..24].copy_from_slice(pair(8000, 2).as_bytes());
    let (entry, contents) = only(&archive(&[&block, &more, &padded(b"aabbccddee")]));
    let segments = entry.segments.unwrap();
    assert_eq!((entry.size, segments.len(), segments[4].offset), (9000, 5, 8000));
    assert_eq!(contents, b"aabbccddee");
}

#[test]
fn pax_sparse_in_its_three_versions() {
    let stored = padded(b"aabb");
    let expected = [Segment { offset: 0, length: 2 }, Segment { offset: 4096, length: 2 }];
    let v00 = [
        ("GNU.sparse.size", "8192"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "4096"),
        ("GNU.sparse.numbytes", "2"),
    ];
    let v01 = [
        ("GNU.sparse.size", "8192"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.map", "0,2,4096,2"),
    ];
    let v10 = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", "8192"),
    ];
    let map = padded(b"2\n0\n2\n4096\n2\n");
    let archives = [
        archive(&[&extended(b'x', &v00), &header("real", b'0', 4), &stored]),
        archive(&[&extended(b'x', &v01), &header("GNUSparseFile.0/x", b'0', 4), &stored]),
        archive(&[&extended(b'x', &v10), &header("GNUSparseFile.0/x", b'0', 516), &map, &stored]),
    ];
    for bytes in archives {
        let (entry, contents) = only(&bytes);
        assert_eq!((&entry.path[..], entry.size), (&b"real"[..], 8192));
        assert_eq!(entry.segments.as_deref(), Some(&expected[..]));
        assert_eq!(contents, b"aabb");
    }
}

#[test]
fn sparse_maps_that_lie_are_errors() {
    for map in ["0,2,1,2", "0,3,4096,2", "8190,4,9000,0", "0,2,4096", "4096,2,0,2"] {
        let records = [("GNU.sparse.size", "8192"), ("GNU.sparse.map", map)];
        let bytes = archive(&[&extended(b'x', &records), &header("s", b'0', 4), &padded(b"aabb")]);
        assert!(read(&bytes).is_err(), "{map}");
    }
}

#[test]
fn v7_directories_contiguous_files_and_prefixes() {
    let mut v7 = header("dir/", b'\0', 0);
    v7[257..265].fill(0);
    seal(&mut v7);
    let mut prefixed = header("name", b'7', 1);
    prefixed[345..348].copy_from_slice(b"a/b");
    seal(&mut prefixed);
    let entries = read(&archive(&[&v7, &prefixed, &padded(b"x")])).unwrap();
    assert_eq!(entries[0].0.kind, Kind::Directory);
    assert_eq!((entries[1].0.kind, &entries[1].0.path[..]), (Kind::File, &b"a/b/name"[..]));
}

#[test]
fn device_fields_are_read_of_devices_only() {
    let mut device = header("null", b'3', 0);
    device[329..337].copy_from_slice(b"0000001\0");
    device[337..345].copy_from_slice(b"0000003\0");
    seal(&mut device);
    let mut file = header("file", b'0', 0);
    file[329..345].fill(b'?');
    seal(&mut file);
    let entries = read(&archive(&[&device, &file])).unwrap();
    assert_eq!(entries[0].0.device, (1, 3));
}

#[test]
fn truncated_and_damaged_archives_are_errors() {
    let whole = archive(&[&header("f", b'0', 600), &padded(&[b'x'; 600])]);
    assert!(read(&whole).is_ok());
    assert!(read(&whole[..BLOCK + 1024]).is_ok(), "the end mark may be missing");
    for length in [100, BLOCK + 1, BLOCK + 1023, BLOCK + 1024 + 7] {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    assert!(read(&damaged).is_err());
    assert!(read(&extended(b'x', &[("path", "orphan")])).is_err());
}

#[test]
fn an_oversized_header_is_refused_before_it_is_read() {
    let bytes = archive(&[&header("pax", b'x', 1 << 30)]);
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn what_follows_the_end_mark_is_read_but_ignored() {
    let mut bytes = archive(&[&header("f", b'0', 0)]);
    bytes.extend_from_slice(&[7; 5000]);
    assert_eq!(read(&bytes).unwrap().len(), 1);
}
