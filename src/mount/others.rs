//! `--allow-other`: the files of a view, readable by those whom every source file and every directory above it lets in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::access::{FileReaders, Guard, Guards, READ, above, settle};
use crate::error::{Error, Result};
use crate::output::{Attributes, Segment, VirtualFile};
use crate::source::SourceFile;
use crate::tensor::Tensor;

/// Files that tell what the weights beside them are.
const METADATA: [&str; 2] = [".metadata", "params.json"];

/// `files` with the owner, the group and the modes that no source forbids. Says so where that leaves a file to root alone.
///
/// # Errors
/// When callers whom the sources let in could not read the view: no owner, group and mode stand for them.
pub fn limited(files: Vec<VirtualFile>) -> Result<Vec<VirtualFile>> {
    let mut sources = Sources::default();
    let of_tensors = sources.of_tensors(&files)?;
    let guards = files.iter().map(|file| sources.guards(file, &of_tensors));
    let guards = guards.collect::<Result<Vec<_>>>()?;
    let first = files
        .first()
        .map(VirtualFile::attributes)
        .unwrap_or_default();
    let readers = settle(&guards, (first.uid, first.gid));
    tell_closed(&files, &readers.files);
    let limited = files
        .into_iter()
        .zip(&readers.files)
        .map(|(file, readers_of)| {
            check(&file, readers_of)?;
            let attributes = Attributes {
                mode: readers_of.mode | owners_write_bit(&file, readers_of),
                uid: readers.owner,
                gid: readers.group,
                ..file.attributes()
            };
            Ok(file.with_attributes(attributes))
        });
    limited.collect()
}

/// The owner's write bit of the source, where the owner may read: a copy of the view can be edited and removed.
fn owners_write_bit(file: &VirtualFile, readers: &FileReaders) -> u16 {
    match readers.mode & 0o400 {
        0 => 0,
        _ => file.attributes().mode & 0o200,
    }
}

fn check(file: &VirtualFile, readers: &FileReaders) -> Result<()> {
    match &readers.closed {
        Some(keepers) if readers.is_lost => Err(Error::checkpoint(
            Path::new(file.path()),
            format!(
                "no owner, group and mode stand for those whom its sources let in: {keepers}; give all of them one group, or mount without --allow-other"
            ),
        )),
        _ => Ok(()),
    }
}

/// Says so where files are left to root, or to one user alone.
fn tell_closed(files: &[VirtualFile], readers: &[FileReaders]) {
    let mut closed = files
        .iter()
        .zip(readers)
        .filter(|(_, readers)| readers.closed.is_some());
    if let Some((
        file,
        FileReaders {
            closed: Some(keepers),
            ..
        },
    )) = closed.next()
    {
        let (path, others) = (file.path(), closed.count());
        let others = if others > 0 {
            format!(" and {others} more files")
        } else {
            String::new()
        };
        tracing::warn!("{path}{others}: --allow-other lets no other user in: {keepers}");
    }
}

/// The guards of source files, and of the directories above them, each asked once.
#[derive(Default)]
struct Sources {
    files: HashMap<usize, Guards>,
    folders: HashMap<PathBuf, Guards>,
}

impl Sources {
    /// Of a file of the view. What the mount makes itself tells of all tensors.
    fn guards(&mut self, file: &VirtualFile, of_tensors: &Guards) -> Result<Guards> {
        let mut guards = Guards::default();
        let mut is_made = true;
        for segment in file.segments() {
            is_made &= matches!(segment, Segment::Inline(_));
            self.add(segment, &mut guards)?;
        }
        if is_made {
            let attributes = file.attributes();
            let owner = (attributes.uid, attributes.gid);
            guards.add_all(of_tensors);
            guards.add(Guard::of_mode(
                Path::new(file.path()),
                owner,
                attributes.mode.into(),
            ));
        }
        for origin in file.origins() {
            guards.add_all(self.of(origin)?);
        }
        Ok(guards)
    }

    fn of_tensors(&mut self, files: &[VirtualFile]) -> Result<Guards> {
        let mut guards = Guards::default();
        let segments = files.iter().flat_map(VirtualFile::segments);
        for segment in
            segments.filter(|segment| matches!(segment, Segment::Tensor(_) | Segment::Framed(_)))
        {
            self.add(segment, &mut guards)?;
        }
        Ok(guards)
    }

    fn add(&mut self, segment: &Segment, guards: &mut Guards) -> Result<()> {
        match segment {
            Segment::Inline(_) => {}
            Segment::Source(source) => guards.add_all(self.of(source)?),
            Segment::Tensor(tensor) => self.add_tensor(tensor, guards)?,
            Segment::Framed(framed) => self.add_tensor(&framed.tensor, guards)?,
        }
        Ok(())
    }

    fn add_tensor(&mut self, tensor: &Tensor, guards: &mut Guards) -> Result<()> {
        let mut result = Ok(());
        tensor.each_stored(&mut |stored| {
            if result.is_ok() {
                result = self
                    .of(stored.file())
                    .map(|of_file| guards.add_all(of_file));
            }
        });
        result
    }

    /// Of a source file, of what tells its tensors' names, and of all directories above.
    fn of(&mut self, source: &SourceFile) -> Result<&Guards> {
        let failed = |error| Error::io(source.path(), error);
        // An object is for all whom the mount lets in: its store asked for the credentials of the mounter.
        if source.is_remote() {
            return Ok(self.files.entry(source.id()).or_default());
        }
        if !self.files.contains_key(&source.id()) {
            let path = source.path();
            let mut guards = self.above(path).map_err(failed)?.clone();
            guards.add(Guard::of_file(path, &*source.handle()?).map_err(failed)?);
            self.files.insert(source.id(), guards);
        }
        Ok(self.files.entry(source.id()).or_default())
    }

    /// Of the directories above `path`, and of the metadata in the one in which it lies.
    fn above(&mut self, path: &Path) -> std::io::Result<&Guards> {
        let folder = path.parent().unwrap_or(path).to_owned();
        if !self.folders.contains_key(&folder) {
            let mut guards = above(path)?;
            let metadata = METADATA.map(|name| folder.join(name));
            for metadata in metadata.iter().filter(|path| path.is_file()) {
                guards.add(Guard::of_path(metadata, READ)?);
            }
            self.folders.insert(folder.clone(), guards);
        }
        Ok(self.folders.entry(folder).or_default())
    }
}
