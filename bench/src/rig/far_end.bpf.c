// The far end of the relay measurement: counts the RTP that a relay sends, reads from it how long
// it was on its way, and drops it in the driver, before the kernel spends anything on it.
//
// Layouts and indices are those of far_end.rs.

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;

#define CELL_RTP 0
#define CELL_SPRAYED 1
#define CELL_LATENCY_MAX 2
#define CELL_LATENCY_BASE 16
#define LATENCY_BUCKETS 16384

#define SETTING_STEP 0
#define SETTING_PASSES 1

#define ETHERNET_LEN 14
#define PAYLOAD_AT (ETHERNET_LEN + 20 + 8)
#define MAGIC_CALL 0x544c4243u
#define MAGIC_SPRAY 0x544c4253u

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CELL_LATENCY_BASE + LATENCY_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} settings SEC(".maps");

struct rtp_header {
	__u8 version_bits;
	__u8 payload_type;
	__u16 sequence;
	__u32 timestamp;
	__u32 ssrc;
} __attribute__((packed));

// What the generator's own packets begin with; encoded audio is shorter, or holds something else.
struct stamped_rtp {
	struct rtp_header header;
	__u32 magic;
	__u32 step;
	__u64 sent_at_nanos;
} __attribute__((packed));

static __always_inline void add(__u32 cell)
{
	__u64 *count = map_lookup(&cells, &cell);
	if (count)
		*count += 1;
}

static __always_inline void observe_latency(__u64 nanos)
{
	__u64 micros = nanos / 1000;
	__u32 cell = CELL_LATENCY_MAX;
	__u64 *max = map_lookup(&cells, &cell);
	if (max && nanos > *max)
		*max = nanos;
	if (micros >= LATENCY_BUCKETS)
		micros = LATENCY_BUCKETS - 1;
	add(CELL_LATENCY_BASE + (__u32)micros);
}

// Veth hands one packet at a time to this program, so plain additions are exact.
SEC("xdp")
int far_end(struct xdp_md *context)
{
	unsigned char *data = (unsigned char *)(long)context->data;
	unsigned char *end = (unsigned char *)(long)context->data_end;
	if (data + PAYLOAD_AT > end)
		return XDP_PASS;
	int is_udp = data[12] == 0x08 && data[13] == 0x00 && data[ETHERNET_LEN] == 0x45 &&
		     data[ETHERNET_LEN + 9] == 17;
	__u32 setting = SETTING_PASSES;
	__u32 *passes = map_lookup(&settings, &setting);
	if (!is_udp || (passes && *passes))
		return XDP_PASS;
	struct rtp_header *header = (struct rtp_header *)(data + PAYLOAD_AT);
	if ((unsigned char *)(header + 1) > end || (header->version_bits & 0xc0) != 0x80)
		return XDP_DROP;
	// What would be RTCP if it came to the same port (RFC 5761, section 4).
	__u8 payload_type = header->payload_type & 0x7f;
	if (payload_type >= 64 && payload_type < 96)
		return XDP_DROP;
	struct stamped_rtp *rtp = (struct stamped_rtp *)header;
	int is_stamped = (unsigned char *)(rtp + 1) <= end;
	if (is_stamped && rtp->magic == MAGIC_SPRAY) {
		add(CELL_SPRAYED);
		return XDP_DROP;
	}
	add(CELL_RTP);
	if (!is_stamped)
		return XDP_DROP;
	setting = SETTING_STEP;
	__u32 *step = map_lookup(&settings, &setting);
	if (step && rtp->magic == MAGIC_CALL && rtp->step == *step)
		observe_latency(ktime_get_ns() - rtp->sent_at_nanos);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
