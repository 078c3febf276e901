//! Bodies as real endpoints write them, with documentation addresses in place of real ones
//! (Twilio's media network is public and kept).

/// Twilio Elastic SIP: an Asterisk-like gateway, one codec, events.
pub(super) const TWILIO_OFFER: &str = "v=0\r\n\
o=root 1735463246 1735463246 IN IP4 168.86.128.7\r\n\
s=Twilio Media Gateway\r\n\
c=IN IP4 168.86.128.7\r\n\
t=0 0\r\n\
m=audio 15342 RTP/AVP 0 101\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-16\r\n\
a=ptime:20\r\n\
a=maxptime:20\r\n\
a=sendrecv\r\n";

/// Telnyx: FreeSWITCH, many codecs, comfort noise, bandwidth and fmtp of codecs we drop.
pub(super) const TELNYX_OFFER: &str = "v=0\r\n\
o=FreeSWITCH 1712345678 1712345679 IN IP4 198.51.100.40\r\n\
s=FreeSWITCH\r\n\
c=IN IP4 198.51.100.40\r\n\
b=AS:84\r\n\
t=0 0\r\n\
m=audio 21886 RTP/AVP 9 0 8 18 101 13\r\n\
a=rtpmap:9 G722/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:18 G729/8000\r\n\
a=fmtp:18 annexb=no\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-15\r\n\
a=rtpmap:13 CN/8000\r\n\
a=ptime:20\r\n";

/// SIPp's built-in `uac`: media-level `c=`, no direction, nothing else.
pub(super) const SIPP_OFFER: &str = "v=0\r\n\
o=user1 53655765 2353687637 IN IP4 203.0.113.9\r\n\
s=-\r\n\
c=IN IP4 203.0.113.9\r\n\
t=0 0\r\n\
m=audio 6000 RTP/AVP 0\r\n\
a=rtpmap:0 PCMU/8000\r\n";

/// Linphone: Opus first, both event clocks, a codec we do not pass, video, RTCP-XR; static
/// formats without rtpmap.
pub(super) const LINPHONE_OFFER: &str = "v=0\r\n\
o=alice 3873 2455 IN IP4 203.0.113.20\r\n\
s=Talk\r\n\
c=IN IP4 203.0.113.20\r\n\
t=0 0\r\n\
a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics\r\n\
a=record:off\r\n\
m=audio 7078 RTP/AVP 96 97 98 0 8 9 101 99\r\n\
a=rtpmap:96 opus/48000/2\r\n\
a=fmtp:96 useinbandfec=1\r\n\
a=rtpmap:97 speex/16000\r\n\
a=fmtp:97 vbr=on\r\n\
a=rtpmap:98 speex/8000\r\n\
a=fmtp:98 vbr=on\r\n\
a=rtpmap:101 telephone-event/48000\r\n\
a=rtpmap:99 telephone-event/8000\r\n\
a=rtcp:7079\r\n\
a=rtcp-fb:* trr-int 5000\r\n\
m=video 9078 RTP/AVP 97 98\r\n\
a=rtpmap:97 VP8/90000\r\n\
a=rtpmap:98 H264/90000\r\n";

/// Linphone's answer to what it is offered in turn.
pub(super) const LINPHONE_ANSWER: &str = "v=0\r\n\
o=bob 1021 1873 IN IP4 203.0.113.30\r\n\
s=Talk\r\n\
c=IN IP4 203.0.113.30\r\n\
t=0 0\r\n\
m=audio 7078 RTP/AVP 96 101\r\n\
a=rtpmap:96 opus/48000/2\r\n\
a=fmtp:96 useinbandfec=1\r\n\
a=rtpmap:101 telephone-event/48000\r\n\
a=rtcp-mux\r\n";

/// Chrome: DTLS-SRTP with ICE and BUNDLE, nothing that a plain peer could use.
pub(super) const CHROME_OFFER: &str = "v=0\r\n\
o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n\
s=-\r\n\
t=0 0\r\n\
a=group:BUNDLE 0\r\n\
a=extmap-allow-mixed\r\n\
a=msid-semantic: WMS 8d2f\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n\
c=IN IP4 0.0.0.0\r\n\
a=rtcp:9 IN IP4 0.0.0.0\r\n\
a=ice-ufrag:4ZcD\r\n\
a=ice-pwd:2/1muCWoOi3uLifh0NuRHlcx\r\n\
a=ice-options:trickle\r\n\
a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
a=setup:actpass\r\n\
a=mid:0\r\n\
a=sendrecv\r\n\
a=rtcp-mux\r\n\
a=rtpmap:111 opus/48000/2\r\n\
a=fmtp:111 minptime=10;useinbandfec=1\r\n\
a=rtpmap:63 red/48000/2\r\n\
a=fmtp:63 111/111\r\n\
a=rtpmap:9 G722/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:13 CN/8000\r\n\
a=rtpmap:110 telephone-event/48000\r\n\
a=rtpmap:126 telephone-event/8000\r\n\
a=ssrc:1948921832 cname:J5t6\r\n";

/// A desk phone on IPv6: bare LF, a Latin-1 byte in its name comes in the property tests.
pub(super) const IPV6_OFFER: &str = "v=0\n\
o=SIP 13 27 IN IP6 2001:db8::77\n\
s=SIP Call\n\
c=IN IP6 2001:db8::77\n\
t=0 0\n\
m=audio 4000 RTP/AVP 8 97\n\
a=rtpmap:8 pcma/8000\n\
a=rtpmap:97 Telephone-Event/8000\n\
a=fmtp:97 0-15\n\
a=sendrecv\n";
