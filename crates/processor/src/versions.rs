//! The checkpoints on disk, and what becomes of them.
//!
//! A checkpoint is the same as long as its index has the same bytes: they have the name, shape, place and
//! checksum of each tensor. When and by what its files were written does not matter, so that a copy is no
//! reason to load anything, and one that was written anew is found out even if it seems as old and as long.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use session_group::{Code, Error, Result};
use session_group_serving::text_format::Messages;

use crate::proto::DESCRIPTORS;
use crate::proto::model::CheckpointState;

/// A checkpoint of one or more variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What its files' names begin with, up to `.index`.
    pub prefix: PathBuf,
    /// The number at the end of its name; 0 where there is none.
    pub step: i64,
    /// Of its index.
    pub digest: u64,
    /// When its index was written: which of two came later, and whether one is there anew.
    pub written: SystemTime,
}

/// What to serve, or what is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub full: Checkpoint,
    /// By their steps, the lowest first.
    pub deltas: Vec<Checkpoint>,
}

/// How what is served becomes what is on disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// These deltas come next, perhaps none.
    Deltas(&'a [Checkpoint]),
    /// Another full checkpoint is the current one.
    Full,
    /// What is served is no longer a beginning of what is there: the trainer has gone back.
    Again {
        why: String,
        /// Deltas that are left from before it went back.
        stale: Vec<Checkpoint>,
    },
}

/// A folder of checkpoints.
pub struct Folder {
    path: PathBuf,
    /// Digests of indexes, as long as these are as they were.
    known: HashMap<PathBuf, (Stamp, u64)>,
}

/// What changes when a file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    changed: (i64, i64),
    place: (u64, u64),
    length: u64,
}

/// The folder of a full checkpoint's deltas, beside it.
const DELTAS: &str = ".incremental_checkpoint";
/// How coarse the times of files may be.
const TICK: Duration = Duration::from_secs(2);

/// Which index this is.
pub fn digest(index: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(index);
    hasher.finish()
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: HashMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The current version: of the folder itself or those in it, the one whose file `checkpoint` was
    /// written last says which checkpoint is the full one. `None` as long as there is none.
    pub fn newest(&mut self) -> Result<Option<Version>> {
        let Some(state) = newest_state(&self.path)? else { return Ok(None) };
        let folder = state.parent().unwrap_or(&self.path).to_path_buf();
        let prefix = current(&state)?;
        // The folder may have been copied from where it was written.
        let full = self.checkpoint(&folder.join(&prefix)).or_else(|error| {
            let beside = prefix.file_name().map(|name| self.checkpoint(&folder.join(name)));
            beside.and_then(Result::ok).ok_or_else(|| {
                let message = format!("{} names a checkpoint: {}", state.display(), error.message);
                Error::new(error.code, message)
            })
        })?;
        let all = prefixes(&folder)?;
        let next = all.iter().filter(|(_, other)| stem(other) == stem(&full.prefix));
        let next = next.map(|&(step, _)| step).filter(|&step| step > full.step).min();
        let deltas = folder.join(DELTAS);
        let mut deltas = if deltas.is_dir() { prefixes(&deltas)? } else { Vec::new() };
        if let Some((_, delta)) = deltas.iter().find(|(_, delta)| number(delta).is_none()) {
            return Err(Error::invalid(format!(
                "delta {} has no number at the end of its name, which gives its place among the others: name it \
                 <name>-<step>",
                delta.display()
            )));
        }
        // Those after a later full checkpoint are that one's, if it was rolled back from there.
        deltas.retain(|&(step, _)| step > full.step && next.is_none_or(|next| step < next));
        // An error means that it has been removed meanwhile.
        let deltas: Vec<_> =
            deltas.iter().filter_map(|(_, delta)| self.checkpoint(delta).ok()).collect();
        self.known.retain(|index, _| {
            let of = |checkpoint: &Checkpoint| index_of(&checkpoint.prefix) == *index;
            of(&full) || deltas.iter().any(of)
        });
        Ok(Some(Version { full, deltas }))
    }

    /// The one of these that is not on disk as it was, but written anew.
    pub fn written_anew<'a>(
        &mut self,
        checkpoints: impl IntoIterator<Item = &'a Checkpoint>,
    ) -> Option<&'a Checkpoint> {
        checkpoints
            .into_iter()
            .find(|old| self.checkpoint(&old.prefix).is_ok_and(|now| !now.is_same(old)))
    }

    fn checkpoint(&mut self, prefix: &Path) -> Result<Checkpoint> {
        let index = index_of(prefix);
        let (written, digest) = self.look_at(&index).map_err(|error| unread(&index, &error))?;
        let step = number(prefix).unwrap_or(0);
        Ok(Checkpoint { prefix: prefix.to_path_buf(), step, digest, written })
    }

    /// When an index was written, and its digest. It is read only where it may have changed.
    fn look_at(&mut self, index: &Path) -> io::Result<(SystemTime, u64)> {
        let there = fs::metadata(index)?;
        if let Some((stamp, digest)) = self.known.get(index)
            && *stamp == Stamp::of(&there)
        {
            return Ok((there.modified()?, *digest));
        }
        let mut file = File::open(index)?;
        let opened = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (stamp, digest) = (Stamp::of(&opened), digest(&bytes));
        // What was written just now may be written again, without another time.
        if stamp.age() > TICK {
            self.known.insert(index.to_path_buf(), (stamp, digest));
        }
        Ok((opened.modified()?, digest))
    }
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            changed: (file.ctime(), file.ctime_nsec()),
            place: (file.dev(), file.ino()),
            length: file.len(),
        }
    }

    /// Zero for what the future has changed.
    fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now.saturating_sub(changed)
    }
}

impl Version {
    /// How this version, which is served, becomes the one that is on disk. A trainer may have removed deltas
    /// that were applied.
    pub fn way<'a>(&self, to: &'a Self) -> Way<'a> {
        if self.full.prefix != to.full.prefix {
            return Way::Full;
        }
        let place = |delta: &Checkpoint| (delta.step, delta.prefix.clone());
        let last = self.deltas.last();
        let newer =
            last.map_or(0, |last| to.deltas.partition_point(|delta| place(delta) <= place(last)));
        let is_applied = |delta: &Checkpoint| self.deltas.iter().any(|own| own.is_same(delta));
        // Of the first that is not what was applied.
        let mut why = None;
        // When the last of them was written.
        let mut turned = None;
        if !self.full.is_same(&to.full) {
            why = Some(format!("{} is not the one that was loaded", to.full.prefix.display()));
            turned = Some(to.full.written);
        }
        let mut stale = Vec::new();
        for (i, delta) in to.deltas.iter().enumerate() {
            if turned.is_some_and(|turned| delta.written < turned) {
                stale.push(delta.clone());
            } else if i < newer && !is_applied(delta) {
                let name = delta.prefix.display();
                let was_there = self.deltas.iter().any(|own| own.prefix == delta.prefix);
                why = why.or(Some(match was_there {
                    true => format!("delta {name} is not the one that was applied"),
                    false => format!(
                        "delta {name} comes before those that were applied, and was not applied"
                    ),
                }));
                turned = turned.max(Some(delta.written));
            }
        }
        if let Some(why) = why {
            return Way::Again { why, stale };
        }
        match last {
            Some(last)
                if newer == to.deltas.len()
                    && !to.deltas.iter().any(|delta| delta.is_same(last)) =>
            {
                let why =
                    format!("delta {} is gone, and no other follows it", last.prefix.display());
                Way::Again { why, stale }
            }
            _ => Way::Deltas(&to.deltas[newer..]),
        }
    }

    /// The checkpoint that comes last.
    pub fn last(&self) -> &Checkpoint {
        self.deltas.last().unwrap_or(&self.full)
    }
}

impl Checkpoint {
    /// Whether both are one, or copies of one in the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.digest == other.digest
    }

    /// Whether its index is still there.
    pub fn is_there(&self) -> bool {
        index_of(&self.prefix).is_file()
    }
}

fn index_of(prefix: &Path) -> PathBuf {
    let mut index = prefix.as_os_str().to_owned();
    index.push(".index");
    index.into()
}

/// A checkpoint's name without the number.
fn stem(prefix: &Path) -> String {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or_else(|| name.to_string(), |(stem, _)| stem.to_string())
}

/// The number at the end of a checkpoint's name.
fn number(prefix: &Path) -> Option<i64> {
    prefix.file_name()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

fn unread(path: &Path, error: &io::Error) -> Error {
    Error::new(Code::NotFound, format!("{}: {error}", path.display()))
}

/// The steps and prefixes of all checkpoints of a folder, in that order. TensorFlow writes an index last.
fn prefixes(folder: &Path) -> Result<Vec<(i64, PathBuf)>> {
    let entries = fs::read_dir(folder).map_err(|error| unread(folder, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unread(folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "index") {
            let prefix = path.with_extension("");
            found.push((number(&prefix).unwrap_or(0), prefix));
        }
    }
    found.sort();
    Ok(found)
}

fn newest_state(checkpoint_dir: &Path) -> Result<Option<PathBuf>> {
    let unread = |error| unread(checkpoint_dir, &error);
    let mut folders = vec![checkpoint_dir.to_path_buf()];
    for entry in fs::read_dir(checkpoint_dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        // Hidden ones, such as that of deltas, may have a file of that name, too.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            folders.push(entry.path());
        }
    }
    let mut states: Vec<_> = folders
        .into_iter()
        .filter_map(|folder| {
            let state = folder.join("checkpoint");
            let written =
                fs::metadata(&state).ok().filter(fs::Metadata::is_file)?.modified().ok()?;
            Some((Reverse(written), Reverse(state)))
        })
        .collect();
    states.sort();
    Ok(states.into_iter().next().map(|(_, Reverse(state))| state))
}

/// The path that a file `checkpoint` names, perhaps relative to its folder.
fn current(state: &Path) -> Result<PathBuf> {
    static MESSAGES: LazyLock<Messages> = LazyLock::new(|| Messages::new(DESCRIPTORS));
    let wrong = |error: &dyn std::fmt::Display| {
        Error::new(Code::DataLoss, format!("{}: {error}", state.display()))
    };
    let text = fs::read_to_string(state).map_err(|error| wrong(&error))?;
    let state: CheckpointState = MESSAGES
        .parse(&text, "serving_processor.CheckpointState")
        .map_err(|error| wrong(&error))?;
    match state.model_checkpoint_path.as_str() {
        "" => Err(wrong(&"it has no model_checkpoint_path, which names the checkpoint to serve")),
        path => Ok(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestFolder(PathBuf);

    impl TestFolder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("processor_versions.{name}.{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn index(&self, prefix: &str) {
            let path = self.0.join(format!("{prefix}.index"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }

        /// Written so many seconds after the epoch.
        fn state(&self, folder: &str, names: &str, second: u64) {
            let path = self.0.join(folder).join("checkpoint");
            fs::write(&path, format!("model_checkpoint_path: \"{names}\"\n")).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }

        fn newest(&self) -> Option<(String, Vec<i64>)> {
            let version = Folder::new(self.0.clone()).newest().unwrap()?;
            let full = version.full.prefix.strip_prefix(&self.0).unwrap().to_str().unwrap();
            Some((full.to_string(), version.deltas.iter().map(|delta| delta.step).collect()))
        }
    }

    impl Drop for TestFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_newest_state_says_which_is_full_and_deltas_follow_it() {
        let folder = TestFolder::new("newest");
        assert_eq!(folder.newest(), None);
        assert!(Folder::new(folder.0.join("none")).newest().is_err());
        for prefix in ["a/m-10", "a/m-20", "b/m-5"] {
            folder.index(prefix);
        }
        folder.state("a", "m-20", 100);
        folder.state("b", "m-5", 50);
        for step in [25, 15, 30, 9] {
            folder.index(&format!("a/.incremental_checkpoint/d-{step}"));
        }
        assert_eq!(folder.newest(), Some(("a/m-20".to_string(), vec![25, 30])));
        // Back to an older one, of this folder and of the other.
        folder.state("a", "m-10", 110);
        assert_eq!(folder.newest(), Some(("a/m-10".to_string(), vec![15])));
        folder.state("b", "m-5", 120);
        assert_eq!(folder.newest(), Some(("b/m-5".to_string(), vec![])));
        // In the folder itself.
        folder.index("m-7");
        folder.state("", "m-7", 130);
        assert_eq!(folder.newest(), Some(("m-7".to_string(), vec![])));
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        let folder = TestFolder::new("wrong");
        let says = |says: &str| {
            let message = Folder::new(folder.0.clone()).newest().unwrap_err().message;
            assert!(message.contains(says), "{says:?} in {message:?}");
        };
        folder.state("", "m-1", 1);
        says("m-1.index");
        folder.index("m-1");
        folder.index(".incremental_checkpoint/delta");
        says("delta has no number");
        fs::write(folder.0.join("checkpoint"), "model_checkpoint_path: ").unwrap();
        says("checkpoint: ");
        fs::write(folder.0.join("checkpoint"), "").unwrap();
        says("has no model_checkpoint_path");
    }

    #[test]
    fn a_checkpoint_is_what_its_index_says() {
        let folder = TestFolder::new("again");
        let index = folder.0.join("m-1.index");
        let mut looking = Folder::new(folder.0.clone());
        let mut look = || looking.checkpoint(&folder.0.join("m-1")).unwrap();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let write = |text: &str, second| {
            fs::write(&index, text).unwrap();
            let file = File::options().write(true).open(&index).unwrap();
            file.set_modified(at(second)).unwrap();
        };
        write("abc", 100);
        let first = look();
        assert_eq!((first.step, first.written), (1, at(100)));
        // As long, and as old as it seems.
        write("abd", 100);
        assert!(!look().is_same(&first));
        write("abc", 200);
        assert!(look().is_same(&first));
        assert_ne!(look(), first, "it is there anew");
        fs::remove_file(&index).unwrap();
        assert!(looking.written_anew([&first]).is_none(), "it is gone, and not written anew");
        write("x", 300);
        assert!(looking.written_anew([&first]).is_some());
    }

    /// A version: the full checkpoint's digest and time, then step, digest and time of each delta.
    fn version(full: (u64, u64), deltas: &[(i64, u64, u64)]) -> Version {
        let checkpoint = |name: &str, step: i64, digest, second| Checkpoint {
            prefix: PathBuf::from(format!("{name}-{step}")),
            step,
            digest,
            written: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let deltas = deltas.iter().map(|&(step, digest, at)| checkpoint("d", step, digest, at));
        Version { full: checkpoint("m", 20, full.0, full.1), deltas: deltas.collect() }
    }

    /// The steps of what comes next, or of what is left out; in the latter case, why.
    fn way(to: &Version) -> (Option<String>, Vec<i64>) {
        let served = version((1, 100), &[(25, 1, 125), (30, 1, 130)]);
        let steps = |deltas: &[Checkpoint]| deltas.iter().map(|delta| delta.step).collect();
        match served.way(to) {
            Way::Deltas(deltas) => (None, steps(deltas)),
            Way::Full => (Some("full".to_string()), Vec::new()),
            Way::Again { why, stale } => (Some(why), steps(&stale)),
        }
    }

    #[test]
    fn deltas_follow_what_is_served() {
        let goes_on = |deltas: &[(i64, u64, u64)], expected: &[i64]| {
            assert_eq!(way(&version((1, 100), deltas)), (None, expected.to_vec()), "{deltas:?}");
        };
        goes_on(&[(25, 1, 125), (30, 1, 130)], &[]);
        goes_on(&[(25, 1, 125), (30, 1, 130), (35, 1, 135), (40, 1, 140)], &[35, 40]);
        // Copied, in another order.
        goes_on(&[(25, 1, 500), (30, 1, 400), (35, 1, 300)], &[35]);
        // The trainer removes what later ones contain: some, or all of them.
        goes_on(&[(30, 1, 130)], &[]);
        goes_on(&[(30, 1, 130), (35, 1, 135)], &[35]);
        goes_on(&[(25, 1, 125), (35, 1, 135)], &[35]);
        goes_on(&[(35, 1, 135)], &[35]);
    }

    #[test]
    fn a_history_that_is_not_the_one_that_is_served_begins_again() {
        let again = |to: &Version, says: &str, left_out: &[i64]| {
            let (why, stale) = way(to);
            let why = why.expect(says);
            assert!(why.contains(says), "{says:?} in {why:?}");
            assert_eq!(stale, left_out, "{says}");
        };
        let anew = |deltas: &[(i64, u64, u64)], says: &str, left_out: &[i64]| {
            again(&version((1, 100), deltas), says, left_out);
        };
        anew(&[(25, 2, 150), (30, 1, 130), (35, 1, 155)], "d-25 is not the one", &[30]);
        anew(&[(25, 2, 150), (30, 2, 151), (35, 1, 155)], "d-25 is not the one", &[]);
        anew(&[(25, 1, 125), (30, 2, 150), (35, 1, 155)], "d-30 is not the one", &[]);
        // One of before that was not applied yet.
        anew(&[(25, 2, 150), (30, 1, 130), (35, 1, 135)], "d-25 is not the one", &[30, 35]);
        // Some were removed, too.
        anew(&[(25, 2, 150)], "d-25 is not the one", &[]);
        anew(&[(30, 2, 150)], "d-30 is not the one", &[]);
        anew(&[(27, 1, 150), (35, 1, 155)], "d-27 comes before", &[]);
        anew(&[(22, 1, 150), (25, 1, 125), (30, 1, 130)], "d-22 comes before", &[25, 30]);
        // One that was copied late, with its time.
        anew(&[(25, 1, 125), (27, 1, 127), (30, 1, 130)], "d-27 comes before", &[]);
        anew(&[(25, 1, 125)], "d-30 is gone", &[]);
        anew(&[], "d-30 is gone", &[]);
        let deltas = [(25, 1, 125), (30, 1, 130), (35, 1, 170)];
        again(&version((2, 160), &deltas), "m-20 is not the one", &[25, 30]);
        let mut other = version((1, 100), &deltas);
        other.full.prefix = PathBuf::from("another/m-20");
        assert_eq!(way(&other).0.as_deref(), Some("full"));
    }
}
