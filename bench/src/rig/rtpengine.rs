//! The peer: rtpengine's user-space path, set up over its ng protocol as a SIP proxy does it, with
//! an offer and an answer for each call.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use trunkline_edge_api::{AudioCodec, SrtpKey, SrtpSuite};
use trunkline_testkit::process::Process;

use super::peer::{CallMedia, LegKeys, MediaLeg, Relay, STOP_LIMIT};
use super::voice::format;
use super::wire::{RELAY_IP, Side, Wire};

/// Longest wait for it to listen, and for it to answer a command.
const LIMIT: Duration = Duration::from_secs(10);
/// Where it takes commands, within its namespace.
const NG_PORT: u16 = 22_222;

/// A value of an ng command.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    /// A dictionary of lists, each of one string.
    Lists(&'a [(&'a str, &'a str)]),
}

impl Value<'_> {
    fn bencode(self, into: &mut String) {
        match self {
            Self::Text(text) => into.push_str(&format!("{}:{text}", text.len())),
            Self::Lists(lists) => {
                into.push('d');
                for (key, item) in lists {
                    into.push_str(&format!("{}:{key}l{}:{item}e", key.len(), item.len()));
                }
                into.push('e');
            }
        }
    }
}

pub(crate) struct Rtpengine {
    process: Process,
    control: UdpSocket,
    next_cookie: u64,
    next_call: u32,
    _directory: tempfile::TempDir,
}

impl Rtpengine {
    /// Version of the installed one; an error when there is none.
    pub(crate) fn version() -> Result<String> {
        let output = std::process::Command::new("rtpengine")
            .arg("--version")
            .output()
            .context("rtpengine does not start (Debian package rtpengine-daemon)")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = said.trim().strip_prefix("Version: ");
        Ok(version.unwrap_or(said.trim()).to_owned())
    }

    /// Starts it at the relay's end of `wire`.
    pub(crate) fn start(wire: &Wire) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("trunkline-bench-")
            .tempdir()?;
        let process = Process::spawn(
            "rtpengine",
            wire.relay_command(OsStr::new("rtpengine")).args([
                "--config-file=none",
                "--foreground",
                "--log-stderr",
                "--log-level=3",
                "--table=-1",
                "--num-threads=1",
                "--port-min=12000",
                "--port-max=27999",
                &format!("--interface={RELAY_IP}"),
                &format!("--listen-ng=127.0.0.1:{NG_PORT}"),
            ]),
            &directory.path().join("rtpengine.log"),
        )?;
        let control = wire.inside(Side::Relay, || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((Ipv4Addr::LOCALHOST, NG_PORT))?;
            Ok(socket)
        })?;
        control.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut rtpengine = Self {
            process,
            control,
            next_cookie: 1,
            next_call: 1,
            _directory: directory,
        };
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = rtpengine.command(&[("command", Value::Text("ping"))]) {
            if let Some(status) = rtpengine.process.try_wait()? {
                bail!(
                    "rtpengine ended with {status}:\n{}",
                    rtpengine.process.output()
                );
            }
            if Instant::now() >= deadline {
                return Err(error).context("rtpengine does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(rtpengine)
    }

    /// Sends a command, a bencoded dictionary behind a cookie that no other command
    /// has, and returns the answer without its cookie.
    fn command(&mut self, fields: &[(&str, Value<'_>)]) -> Result<String> {
        let cookie = format!("tl{}", self.next_cookie);
        self.next_cookie += 1;
        let mut message = format!("{cookie} d");
        for (key, value) in fields {
            Value::Text(key).bencode(&mut message);
            value.bencode(&mut message);
        }
        message.push('e');
        self.control.send(message.as_bytes())?;
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 4_096];
        loop {
            match self.control.recv(&mut buffer) {
                Ok(len) => {
                    let answer = String::from_utf8_lossy(&buffer[..len]);
                    if let Some(answer) = answer.strip_prefix(&format!("{cookie} ")) {
                        return Ok(answer.to_owned());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ensure!(Instant::now() < deadline, "no answer to {message}");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::command`]; the SDP of the answer.
    fn negotiate(&mut self, fields: &[(&str, Value<'_>)]) -> Result<String> {
        let answer = self.command(fields)?;
        let sdp = || {
            let (_, rest) = answer.split_once("3:sdp")?;
            let (len, text) = rest.split_once(':')?;
            text.get(..len.parse().ok()?)
        };
        sdp()
            .map(str::to_owned)
            .with_context(|| format!("rtpengine says {answer}"))
    }

    fn open_call(
        &mut self,
        peer: SocketAddr,
        media: &CallMedia,
        legs: &mut Vec<MediaLeg>,
    ) -> Result<()> {
        use Value::{Lists, Text};
        let call_id = format!("bench-{}", self.next_call);
        self.next_call += 1;
        let [a, b] = media.codecs;
        let profile = match media.suite {
            Some(_) => "RTP/SAVP",
            None => "RTP/AVP",
        };
        let sdp = sdp_of(peer, "RTP/AVP", a, "");
        let mut offer = vec![
            ("command", Text("offer")),
            ("call-id", Text(&call_id)),
            ("from-tag", Text("a")),
            ("transport-protocol", Text(profile)),
            ("ICE", Text("remove")),
            ("sdp", Text(&sdp)),
        ];
        // The second leg is offered nothing but its own codec.
        let codecs = [("mask", "all"), ("transcode", b.encoding_name())];
        if a != b {
            offer.push(("codec", Lists(&codecs)));
        }
        let offered = self.negotiate(&offer)?;
        let (keys, crypto_line) = match media.suite {
            None => (None, String::new()),
            Some(suite) => {
                let (keys, line) = accept_crypto(&offered, suite)?;
                (Some(keys), line)
            }
        };
        let sdp = sdp_of(peer, profile, b, &crypto_line);
        let answered = self.negotiate(&[
            ("command", Text("answer")),
            ("call-id", Text(&call_id)),
            ("from-tag", Text("a")),
            ("to-tag", Text("b")),
            ("transport-protocol", Text("RTP/AVP")),
            ("ICE", Text("remove")),
            ("sdp", Text(&sdp)),
        ])?;
        legs.push(MediaLeg {
            relay: address_in(&answered)?,
            crypto: None,
        });
        legs.push(MediaLeg {
            relay: address_in(&offered)?,
            crypto: keys,
        });
        Ok(())
    }
}

impl Relay for Rtpengine {
    fn open_calls(
        &mut self,
        count: u32,
        peer: SocketAddr,
        media: &CallMedia,
    ) -> Result<Vec<MediaLeg>> {
        let mut legs = Vec::with_capacity(2 * count as usize);
        for _ in 0..count {
            self.open_call(peer, media, &mut legs)?;
        }
        Ok(legs)
    }

    fn keep_in_touch(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("rtpengine ended with {status}:\n{}", self.process.output());
        }
        Ok(())
    }

    fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn stop(&mut self) -> Result<()> {
        self.process.terminate(STOP_LIMIT).map(|_| ())
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A session description with one codec.
fn sdp_of(peer: SocketAddr, profile: &str, codec: AudioCodec, crypto_line: &str) -> String {
    let (ip, port) = (peer.ip(), peer.port());
    let format = format(codec);
    let (number, name) = (format.payload_type.get(), codec.encoding_name());
    let channels = if format.channels == 2 { "/2" } else { "" };
    let clock_rate = format.clock_rate.get();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} {number}\r\na=rtpmap:{number} {name}/{clock_rate}{channels}\r\na=ptime:20\r\na=sendrecv\r\n{crypto_line}"
    )
}

/// The RTP address of the one medium.
fn address_in(sdp: &str) -> Result<SocketAddr> {
    let value = |prefix: &str| {
        sdp.lines()
            .find_map(|line| line.strip_prefix(prefix))
            .and_then(|rest| rest.split(' ').next())
            .with_context(|| format!("no {prefix} in {sdp}"))
    };
    let ip: Ipv4Addr = value("c=IN IP4 ")?.parse()?;
    let port: u16 = value("m=audio ")?.parse()?;
    Ok(SocketAddr::new(ip.into(), port))
}

/// Takes the offered `a=crypto` with `suite` (RFC 4568): the keys, and the line that answers it.
fn accept_crypto(offer: &str, suite: SrtpSuite) -> Result<(LegKeys, String)> {
    let name = suite.sdes_name();
    let (tag, inline) = offer
        .lines()
        .filter_map(|line| line.strip_prefix("a=crypto:"))
        .find_map(|line| {
            let mut words = line.split(' ');
            let tag = words.next()?;
            let is_it = words.next()? == name;
            let inline = words.next()?.strip_prefix("inline:")?;
            is_it.then_some((tag, inline.split('|').next()?))
        })
        .with_context(|| format!("{name} is not offered in {offer}"))?;
    let key = |octets: &[u8]| SrtpKey::new(suite, octets).context("a key of another length");
    let from_relay = key(&STANDARD_NO_PAD.decode(inline.trim_end_matches('='))?)?;
    let own: Vec<u8> = from_relay
        .key_and_salt()
        .iter()
        .map(|octet| octet ^ 0x5a)
        .collect();
    let line = format!("a=crypto:{tag} {name} inline:{}\r\n", STANDARD.encode(&own));
    let keys = LegKeys {
        suite,
        to_relay: key(&own)?,
        from_relay,
    };
    Ok((keys, line))
}
