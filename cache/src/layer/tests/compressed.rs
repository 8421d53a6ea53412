//! Compressed forms.

use std::io::{Cursor, ErrorKind, Read, Write};

use super::archives::tool;
use super::compression::{Compression, Decoder, Encoder, Encoding, decompress, detect};
use super::*;

/// Bytes that compress, but not to nothing, and differ from block to block.
fn text(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut text = Vec::with_capacity(size + 16);
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("line {} ", state >> 20).as_bytes());
    }
    text.truncate(size);
    text
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(size).collect()
}

fn encode(encoding: Encoding, threads: usize, bytes: &[u8], write_size: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), encoding, &pool(threads)).unwrap();
    bytes.chunks(write_size.max(1)).for_each(|chunk| encoder.write_all(chunk).unwrap());
    encoder.finish().unwrap()
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    decompress(bytes).unwrap().read_to_end(&mut decoded).unwrap();
    decoded
}

const BLOCK: usize = 256 * 1024;

#[test]
fn what_is_compressed_can_be_decompressed() {
    for size in [0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 77] {
        let bytes = text(size);
        for encoding in [
            Encoding::None,
            Encoding::Gzip { level: 6 },
            Encoding::Gzip { level: 0 },
            Encoding::Zstd { level: 3 },
        ] {
            let encoded = encode(encoding, 2, &bytes, 100_000);
            assert!(decode(&encoded) == bytes, "{encoding:?} of {size} bytes");
        }
    }
}

#[test]
fn incompressible_bytes_survive() {
    let bytes = noise(800_000);
    for level in [0, 1, 6, 9] {
        assert!(decode(&encode(Encoding::Gzip { level }, 2, &bytes, 1 << 20)) == bytes, "level {level}");
    }
}

#[test]
fn neither_threads_nor_write_sizes_show() {
    let bytes = text(7 * BLOCK + 5);
    for encoding in [Encoding::Gzip { level: 6 }, Encoding::Zstd { level: 3 }] {
        let expected = encode(encoding, 1, &bytes, bytes.len());
        for (threads, write_size) in [(1, 1000), (2, BLOCK), (4, 12_345), (3, bytes.len())] {
            assert!(
                encode(encoding, threads, &bytes, write_size) == expected,
                "{encoding:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn what_does_not_shrink_is_stored_and_the_rest_is_compressed() {
    let (noise, text) = (noise(4 * BLOCK), text(BLOCK));
    let encoded = |bytes: &[u8]| encode(Encoding::Gzip { level: 6 }, 2, bytes, 1 << 20).len();
    assert!((4 * BLOCK..4 * BLOCK + 1024).contains(&encoded(&noise)));
    let mixed = [&noise[..], &text, &noise].concat();
    assert!(encoded(&mixed) < 8 * BLOCK + BLOCK / 2);
    assert!(decode(&encode(Encoding::Gzip { level: 6 }, 2, &mixed, 77_777)) == mixed);
}

#[test]
fn the_bytes_of_compressed_layers_stay() {
    let golden = "sha256:62266d51f2e05600fcd1380bd255827b2bf8f7d26cccd5f8f3ec4dc1206f1e89";
    let digest = rbuild_image::Digest::of(encode(Encoding::Gzip { level: 6 }, 2, &text(3 * BLOCK), 4096));
    assert_eq!(digest.to_string(), golden, "this changes the digest of every compressed layer: is it meant?");
}

#[test]
fn an_encoder_works_on_a_thread_of_its_own_pool() {
    let (pool, bytes) = (pool(1), text(9 * BLOCK));
    let encoded = pool.install(|| {
        let mut encoder = Encoder::new(Vec::new(), Encoding::Gzip { level: 1 }, &pool).unwrap();
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap()
    });
    assert!(decode(&encoded) == bytes);
}

#[test]
fn other_programs_read_what_is_written() {
    let bytes = text(2 * BLOCK + 1);
    let gzip = encode(Encoding::Gzip { level: 6 }, 2, &bytes, 5000);
    for (program, arguments) in [("gzip", &["-dc"][..]), ("pigz", &["-dc"]), ("python3", &["-c", PYTHON])] {
        if let Some(decoded) = tool(program, arguments, &gzip, None) {
            assert!(decoded == bytes, "{program}");
        }
    }
    if let Some(decoded) = tool("zstd", &["-dc"], &encode(Encoding::Zstd { level: 3 }, 2, &bytes, 5000), None)
    {
        assert!(decoded == bytes);
    }
}

const PYTHON: &str = "import sys,gzip; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";

/// The same small archive in every form.
fn forms() -> Vec<(Compression, Vec<u8>)> {
    let archive = archive_of(&[("d", None), ("d/f", Some("text"))]);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bzip2.write_all(&archive).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&archive).unwrap();
    vec![
        (Compression::Gzip, encode(Encoding::Gzip { level: 6 }, 1, &archive, 512)),
        (Compression::Zstd, encode(Encoding::Zstd { level: 3 }, 1, &archive, 512)),
        (Compression::Bzip2, bzip2.finish().unwrap()),
        (Compression::Xz, xz.finish().unwrap()),
        (Compression::None, archive),
    ]
}

/// A reader that yields one byte at a time.
struct Trickle<R>(R);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn every_form_is_recognised_and_read() {
    let forms = forms();
    let archive = &forms.last().unwrap().1;
    for (compression, bytes) in &forms {
        assert_eq!(detect(bytes), *compression);
        assert!(&decode(bytes) == archive, "{compression:?}");
        assert!(is_archive(&bytes[..]), "{compression:?}");
        let mut slow = Decoder::new(Trickle(&bytes[..]), 1 << 20).unwrap();
        assert_eq!(slow.compression(), *compression);
        let mut decoded = Vec::new();
        slow.read_to_end(&mut decoded).unwrap();
        assert!(&decoded == archive, "{compression:?}");
    }
}

#[test]
fn members_in_a_row_are_one_stream() {
    let forms = forms();
    let archive = forms.last().unwrap().1.clone();
    for (compression, bytes) in forms {
        if compression != Compression::None {
            assert!(decode(&bytes.repeat(2)) == archive.repeat(2), "{compression:?}");
        }
    }
}

#[test]
fn a_truncated_stream_is_an_error() {
    for (compression, bytes) in forms() {
        if compression != Compression::None {
            let mut decoder = decompress(&bytes[..bytes.len() - 5]).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }
}

#[test]
fn what_is_no_archive_is_none() {
    let gzip_of_text = encode(Encoding::Gzip { level: 6 }, 1, b"just text", 10);
    let zeros = [0; 4096];
    let table: [&[u8]; 7] =
        [b"", b"text", b"#!/bin/sh\n", &gzip_of_text, &gzip_of_text[..4], &zeros, b"\x1f\x8b\x08"];
    for bytes in table {
        assert!(!is_archive(bytes), "{bytes:?}");
    }
    let mut archive = archive_of(&[("f", Some("x"))]);
    archive[0] = b'g';
    assert!(!is_archive(&archive[..]), "the checksum is wrong");
}

#[test]
fn expansion_has_a_limit() {
    let bomb = encode(Encoding::Gzip { level: 9 }, 1, &vec![0; 8 << 20], 1 << 20);
    assert!(bomb.len() < 20_000);
    let mut decoder = Decoder::new(Cursor::new(&bomb), (8 << 20) - 1).unwrap();
    let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    let mut decoder = Decoder::new(Cursor::new(&bomb), 8 << 20).unwrap();
    assert_eq!(decoder.read_to_end(&mut Vec::new()).unwrap(), 8 << 20);
}
