//! A disk in memory: only what was synced survives a crash for sure. Of the rest each sector may
//! have reached the platter or not.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use obol_settle::sim::Host;
use redb::StorageBackend;
use tokio::sync::Notify;

use crate::rng::{Rng, mix};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// What is on the platter.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pages: Vec<Option<Page>>,
    len: u64,
}

/// What may go wrong with a disk during one life of the cashier; counted in writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power goes before this write.
    pub crash_at: Option<u64>,
    /// No room from one write on, for so many.
    pub full: Option<(u64, u64)>,
    /// A planted bug: syncs do nothing.
    pub no_sync: bool,
}

/// The machine of one life.
pub struct Machine {
    state: Mutex<State>,
    /// Rung when the power goes.
    pub crashed: Notify,
}

struct State {
    now: Image,
    durable: Image,
    dirty: Vec<usize>,
    writes: u64,
    faults: Faults,
    dead: bool,
    rng: Rng,
}

impl Machine {
    /// Starts from what an earlier life left.
    pub fn new(image: Image, faults: Faults, seed: u64) -> Arc<Self> {
        let state = State { now: image.clone(), durable: image, dirty: Vec::new(), writes: 0, faults, dead: false, rng: Rng::new(seed) };
        Arc::new(Self { state: Mutex::new(state), crashed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes: nothing is written any more.
    pub fn crash(&self) {
        self.state().dead = true;
        self.crashed.notify_one();
    }

    /// Whether it went.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// What the next life finds.
    pub fn remains(&self) -> Image {
        let mut state = self.state();
        let (mode, salt) = (state.rng.below(3), state.rng.next());
        let mut image = state.durable.clone();
        let State { now, dirty, .. } = &*state;
        if mode == 1 {
            image.len = now.len;
        }
        for &index in dirty {
            let mut page = *image.page(index);
            let fresh = now.page(index);
            for sector in 0..PAGE / SECTOR {
                let place = (index * (PAGE / SECTOR) + sector) as u64;
                if mode == 1 || (mode == 2 && mix(salt ^ place) & 1 == 1) {
                    let at = sector * SECTOR..(sector + 1) * SECTOR;
                    page[at.clone()].copy_from_slice(&fresh[at]);
                    image.len = image.len.max((((index * PAGE) + (sector + 1) * SECTOR) as u64).min(now.len));
                }
            }
            image.put(index, Arc::new(page));
        }
        image
    }
}

impl Image {
    fn page(&self, index: usize) -> Page {
        self.pages.get(index).cloned().flatten().unwrap_or_else(|| Arc::new([0; PAGE]))
    }

    fn put(&mut self, index: usize, page: Page) {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        self.pages[index] = Some(page);
    }
}

/// A machine as the cashier sees it.
#[derive(Clone)]
pub struct Handle(pub Arc<Machine>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disk")
    }
}

impl Host for Handle {
    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        builder.create_with_backend(self.clone())
    }
    fn commit_latency(&self) -> Duration {
        let mut state = self.0.state();
        let slow = state.rng.percent(3);
        Duration::from_micros(if slow { state.rng.range(10_000, 2_000_000) } else { state.rng.range(200, 8_000) })
    }
}

impl Handle {
    /// Counts a write, and fails it where it is to fail.
    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.state();
        state.writes += 1;
        let writes = state.writes;
        if !state.dead && state.faults.crash_at.is_some_and(|at| writes >= at) {
            state.dead = true;
            self.0.crashed.notify_one();
        }
        if state.dead {
            return Err(io::Error::other("the power is off"));
        }
        if state.faults.full.is_some_and(|(from, count)| (from..from + count).contains(&writes)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(state)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().now.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        if offset + out.len() as u64 > state.now.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset as usize + done;
            let (index, inside) = (at / PAGE, at % PAGE);
            let count = (PAGE - inside).min(out.len() - done);
            match state.now.pages.get(index).and_then(Option::as_ref) {
                Some(page) => out[done..done + count].copy_from_slice(&page[inside..inside + count]),
                None => out[done..done + count].fill(0),
            }
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        state.now.len = len;
        let keep = (len as usize).div_ceil(PAGE);
        state.now.pages.truncate(keep);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.writing()?;
        let state = &mut *guard;
        if state.faults.no_sync {
            return Ok(());
        }
        for index in std::mem::take(&mut state.dirty) {
            let page = state.now.page(index);
            state.durable.put(index, page);
        }
        state.durable.len = state.now.len;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut guard = self.writing()?;
        let state = &mut *guard;
        let mut done = 0;
        while done < data.len() {
            let at = offset as usize + done;
            let (index, inside) = (at / PAGE, at % PAGE);
            let count = (PAGE - inside).min(data.len() - done);
            if state.now.pages.len() <= index {
                state.now.pages.resize(index + 1, None);
            }
            let page = state.now.pages[index].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + count].copy_from_slice(&data[done..done + count]);
            if !state.dirty.contains(&index) {
                state.dirty.push(index);
            }
            done += count;
        }
        state.now.len = state.now.len.max(offset + data.len() as u64);
        Ok(())
    }
}

/// The image of a fresh journal, made once: as shipped, it is made whole under another name.
pub fn fresh(make: impl FnOnce(Arc<dyn Host>)) -> Image {
    let machine = Machine::new(Image::default(), Faults::default(), 0);
    make(Arc::new(Handle(Arc::clone(&machine))));
    let mut state = machine.state();
    state.durable = state.now.clone();
    state.now.clone()
}
