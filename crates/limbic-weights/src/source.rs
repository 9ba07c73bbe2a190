//! A weights file that stays open and is looked at through short-lived windows.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::WeightsError;

/// An open file of weights.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    file: File,
    length: u64,
}

/// How a window's pages come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// All at once, for what is read from end to end.
    Whole,
    /// As they are touched, for values that lie far apart.
    Sparse,
}

impl SourceFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, WeightsError> {
        let failed = || WeightsError::io(path);
        // Opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(failed())?.is_file() {
            let problem = "not a regular file; wanted one that holds weights";
            return Err(failed()(io::Error::new(
                io::ErrorKind::InvalidInput,
                problem,
            )));
        }
        let file = File::open(path).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            file,
            length,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes, when it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Copies the bytes from `start` on into `bytes`. Of a stretch that is read once from end to end this costs less than
    /// a window, whose pages are mapped and let go again one by one.
    pub(crate) fn read(&self, start: u64, bytes: &mut [u8]) -> Result<(), WeightsError> {
        #[cfg(unix)]
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, start)
            .map_err(|error| self.failed_to_read(error, start, bytes.len()))?;
        #[cfg(not(unix))]
        bytes.copy_from_slice(&self.window(start..start + bytes.len() as u64, Access::Whole)?);
        Ok(())
    }

    /// Maps a stretch of bytes. The pages leave this process's memory when the window is dropped, so that a copy and
    /// its original are never counted both.
    pub(crate) fn window(&self, bytes: Range<u64>, access: Access) -> Result<Mmap, WeightsError> {
        let failed = || WeightsError::io(&self.path);
        let now = self.file.metadata().map_err(failed())?.len();
        if bytes.end > now {
            return Err(self.was_cut(now, bytes));
        }
        let length = usize::try_from(bytes.end - bytes.start).map_err(io::Error::other);
        let mut options = MmapOptions::new();
        options.offset(bytes.start).len(length.map_err(failed())?);
        if access == Access::Whole {
            options.populate();
        }
        #[expect(
            unsafe_code,
            reason = "a mapping is unsound when another process rewrites the file meanwhile; weights are written once, \
                      the window is read-only, lives for one copy, and any bit pattern is a valid value"
        )]
        unsafe { options.map(&self.file) }.map_err(failed())
    }

    #[cfg(unix)]
    fn failed_to_read(&self, error: io::Error, start: u64, count: usize) -> WeightsError {
        match self.file.metadata() {
            Ok(now) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.was_cut(now.len(), start..start + count as u64)
            }
            _ => WeightsError::io(&self.path)(error),
        }
    }

    fn was_cut(&self, now: u64, bytes: Range<u64>) -> WeightsError {
        let problem = format!(
            "holds {now} bytes, and bytes {} to {} were to be read; it was cut while in use",
            bytes.start, bytes.end
        );
        WeightsError::io(&self.path)(io::Error::new(io::ErrorKind::UnexpectedEof, problem))
    }
}
