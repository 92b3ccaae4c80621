use super::*;
use std::cell::Cell;
use std::thread;

/// Serves so many connections of a pair of sockets each; gives what each scraper got.
fn scraped(requests: &[&[u8]], metrics: impl FnMut() -> Result<String>) -> Vec<String> {
    let mut exporter = Exporter { metrics, kept: None };
    let answer = |exporter: &mut Exporter<_>, request: &[u8]| {
        let (mut scraper, stream) = UnixStream::pair().unwrap();
        scraper.write_all(request).unwrap();
        scraper.shutdown(std::net::Shutdown::Write).unwrap();
        exporter.serve(stream).ok();
        let mut text = String::new();
        scraper.read_to_string(&mut text).unwrap();
        text
    };
    requests.iter().map(|request| answer(&mut exporter, request)).collect()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_picture_is_kept_for_a_moment_and_an_error_is_not() {
    let asked = Cell::new(0);
    let metrics = || {
        asked.set(asked.get() + 1);
        if asked.get() == 1 { bail!("no store") } else { Ok("# EOF\n".to_owned()) }
    };
    let answers = scraped(&[GET, GET, GET, b"GET / HTTP/1.1\r\n\r\n", b"GET /met"], metrics);
    let status = |answer: &String| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(answers.iter().map(status).collect::<Vec<_>>(), ["503", "200", "200", "404", ""]);
    assert_eq!(asked.get(), 2);
    // Why the store was not read is not told to who asks.
    assert!(!answers[0].contains("no store") && answers[1].ends_with("\r\n\r\n# EOF\n"));
}

/// A scraper of real sockets, beside one that sends nothing and goes.
#[test]
fn scrapers_are_served_one_after_the_other() {
    let path = std::env::temp_dir().join(format!("oxidom-exporter-{}", std::process::id()));
    let listener = listen(&path).unwrap();
    assert!(listen(&path).unwrap_err().to_string().contains("served already"));
    thread::spawn(move || {
        let mut exporter = Exporter { metrics: || Ok("x".repeat(1 << 20)), kept: None };
        exporter.accept(|| listener.accept().map(|(stream, _)| stream))
    });
    drop(UnixStream::connect(&path).unwrap());
    let mut scraper = UnixStream::connect(&path).unwrap();
    for piece in GET.chunks(7) {
        scraper.write_all(piece).unwrap();
    }
    let mut text = String::new();
    scraper.read_to_string(&mut text).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.len() > 1 << 20);
}

/// A stream whose other side never says, or never takes, a whole request.
struct Slow {
    bytes: &'static [u8],
    timeouts: Cell<u32>,
}

impl Read for Slow {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match (self.bytes.split_first(), bytes.first_mut()) {
            (Some((first, rest)), Some(place)) => {
                (*place, self.bytes) = (*first, rest);
                Ok(1)
            }
            (None, Some(_)) => Err(ErrorKind::WouldBlock.into()),
            (_, None) => Ok(0),
        }
    }
}

impl Write for Slow {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for Slow {
    fn set_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        assert!(!timeout.is_zero() && timeout <= PATIENCE);
        self.timeouts.set(self.timeouts.get() + 1);
        Ok(())
    }
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let mut exporter = Exporter { metrics: || Ok(String::new()), kept: None };
    for bytes in [b"GET /metr".as_slice(), GET] {
        let served = exporter.serve(Slow { bytes, timeouts: Cell::new(0) });
        assert_eq!(served.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(left(Instant::now()).unwrap_err().kind(), ErrorKind::TimedOut);
}
