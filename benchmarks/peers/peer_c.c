/* The C client librabbitmq, with the arguments and the result line of the other peers:
 *   peer_c SCENARIO URL QUEUE COUNT [--prefetch N] [--exchange NAME] [--size BYTES]
 * Publishes are persistent and mandatory, carry a message id, and are confirmed. With an exchange each has a
 * routing key of its own, QUEUE.NUMBER. "ping" publishes a message, waits for it, acks it, and so on. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { WINDOW = 1000, WINDOW_BYTES = 32 << 20 };

static long body_size = 200;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6 + usage.ru_stime.tv_sec +
         usage.ru_stime.tv_usec / 1e6;
}

static void fail(const char *what) {
  fprintf(stderr, "peer_c: %s\n", what);
  exit(1);
}

static void must(int status, const char *what) {
  if (status != AMQP_STATUS_OK) {
    fprintf(stderr, "peer_c: %s: %s\n", what, amqp_error_string2(status));
    exit(1);
  }
}

static void must_answer(amqp_connection_state_t connection, const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static amqp_connection_state_t connect_to(char *url) {
  struct amqp_connection_info info;
  amqp_default_connection_info(&info);
  must(amqp_parse_url(url, &info), "the URL");
  if (!info.vhost[0]) info.vhost = "/"; /* a path of "/" alone is the default virtual host, as the others read it */
  amqp_connection_state_t connection = amqp_new_connection();
  must(amqp_socket_open(amqp_tcp_socket_new(connection), info.host, info.port), "connect");
  if (amqp_login(connection, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password)
          .reply_type != AMQP_RESPONSE_NORMAL)
    fail("the login was refused");
  amqp_channel_open(connection, 1);
  must_answer(connection, "channel.open");
  return connection;
}

static const char *exchange = "";
static double p50, p99; /* microseconds, of "ping" */

static void publish_one(amqp_connection_state_t connection, const char *queue, long number) {
  static char *body;
  char id[33], key[256];
  if (exchange[0])
    snprintf(key, sizeof key, "%s.%ld", queue, number);
  else
    snprintf(key, sizeof key, "%s", queue);
  snprintf(id, sizeof id, "%032lx", number);
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
      .delivery_mode = 2,
      .message_id = amqp_cstring_bytes(id),
  };
  if (!body) {
    body = malloc(body_size);
    if (!body) fail("out of memory");
    memset(body, 'x', body_size);
  }
  amqp_bytes_t content = {.len = body_size, .bytes = body};
  must(amqp_basic_publish(connection, 1, amqp_cstring_bytes(exchange), amqp_cstring_bytes(key), 1, 0,
                          &properties, content),
       "basic.publish");
}

/* Waits for one confirm. `settled` marks tags beyond `*low`; gives how many publishes it settled. Confirms
 * come in any order, and one with `multiple` settles all up to its tag that are still open. */
static long take_confirm(amqp_connection_state_t connection, char *settled, uint64_t *low) {
  amqp_frame_t frame;
  must(amqp_simple_wait_frame(connection, &frame), "waiting for a confirm");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
    fail("something else than a confirm came");
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  long count = 0;
  uint64_t first = ack->multiple ? *low + 1 : ack->delivery_tag;
  for (uint64_t tag = first; tag <= ack->delivery_tag; tag++) {
    count += !settled[tag];
    settled[tag] = 1;
  }
  while (settled[*low + 1]) ++*low;
  return count;
}

static void publish(amqp_connection_state_t connection, const char *queue, long count, long window) {
  amqp_confirm_select(connection, 1);
  must_answer(connection, "confirm.select");
  char *settled = calloc(count + 2, 1);
  if (!settled) fail("out of memory");
  uint64_t low = 0;
  long confirmed = 0;
  for (long sent = 0; sent < count; sent++) {
    while (sent - confirmed >= window) confirmed += take_confirm(connection, settled, &low);
    publish_one(connection, queue, sent);
    amqp_maybe_release_buffers(connection);
  }
  while (confirmed < count) confirmed += take_confirm(connection, settled, &low);
  free(settled);
}

static void consume(amqp_connection_state_t connection, const char *queue, long count) {
  amqp_basic_consume(connection, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  must_answer(connection, "basic.consume");
  for (long taken = 0; taken < count; taken++) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
      fail("waiting for a message");
    must(amqp_basic_ack(connection, 1, envelope.delivery_tag, 0), "basic.ack");
    amqp_destroy_envelope(&envelope);
  }
}

static int by_size(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

static void ping(amqp_connection_state_t connection, const char *queue, long count) {
  double *took = calloc(count, sizeof *took);
  if (!took) fail("out of memory");
  amqp_basic_consume(connection, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  must_answer(connection, "basic.consume");
  for (long number = 0; number < count; number++) {
    amqp_envelope_t envelope;
    double began = seconds();
    publish_one(connection, queue, number);
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
      fail("waiting for a message");
    took[number] = seconds() - began;
    must(amqp_basic_ack(connection, 1, envelope.delivery_tag, 0), "basic.ack");
    amqp_destroy_envelope(&envelope);
  }
  qsort(took, count, sizeof *took, by_size);
  p50 = took[count / 2] * 1e6;
  p99 = took[count * 99 / 100] * 1e6;
  free(took);
}

int main(int argc, char **argv) {
  uint16_t prefetch = 200;
  int usable = argc >= 5 && argc % 2;
  for (int option = 5; usable && option < argc; option += 2) {
    if (!strcmp(argv[option], "--prefetch"))
      prefetch = (uint16_t)atoi(argv[option + 1]);
    else if (!strcmp(argv[option], "--exchange"))
      exchange = argv[option + 1];
    else if (!strcmp(argv[option], "--size"))
      body_size = atol(argv[option + 1]);
    else
      usable = 0;
  }
  if (!usable) {
    fprintf(stderr, "usage: peer_c publish|publish-one-by-one|consume|ping URL QUEUE COUNT [--prefetch N] [--exchange NAME] [--size BYTES]\n");
    return 2;
  }
  const char *scenario = argv[1], *queue = argv[3];
  long count = atol(argv[4]);
  amqp_connection_state_t connection = connect_to(argv[2]);
  amqp_basic_qos(connection, 1, 0, prefetch, 0);
  must_answer(connection, "basic.qos");

  double began = seconds(), cpu_began = cpu();
  if (!strcmp(scenario, "publish"))
    publish(connection, queue, count, body_size * WINDOW > WINDOW_BYTES ? WINDOW_BYTES / body_size + 1 : WINDOW);
  else if (!strcmp(scenario, "publish-one-by-one"))
    publish(connection, queue, count, 1);
  else if (!strcmp(scenario, "consume"))
    consume(connection, queue, count);
  else if (!strcmp(scenario, "ping"))
    ping(connection, queue, count);
  else
    fail("no such scenario");
  double took = seconds() - began, cpu_took = cpu() - cpu_began;

  printf("{\"scenario\": \"%s\", \"messages\": %ld, \"seconds\": %.4f, \"per_second\": %.0f, \"cpu_us\": %.2f, "
         "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
         scenario, count, took, count / took, cpu_took / count * 1e6, p50, p99);
  amqp_channel_close(connection, 1, AMQP_REPLY_SUCCESS);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
