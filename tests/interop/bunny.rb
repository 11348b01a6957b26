# A program of bunny's (Ruby): what it prints must be the same on every broker. Argument: the broker's URL.
require "bunny"

connection = Bunny.new(ARGV.fetch(0), recovery_attempts: 0, automatic_recovery: false)
connection.start
puts "connected to #{connection.server_properties.fetch("product")}"
channel = connection.create_channel
channel.confirm_select
channel.prefetch(10)

# Every kind of exchange, server-named and named queues.
direct = channel.direct("bunny.direct", durable: true)
topic = channel.topic("bunny.topic", auto_delete: true)
fanout = channel.fanout("bunny.fanout")
headers = channel.headers("bunny.headers")
named = channel.queue("bunny.named", durable: true, arguments: { "x-max-length" => 100 })
own = channel.queue("", exclusive: true)
puts "a name from the broker: #{own.name.start_with?("amq.gen-")}"
named.bind(direct, routing_key: "key")
named.bind(topic, routing_key: "a.#")
own.bind(fanout)
own.bind(headers, arguments: { "x-match" => "all", "kind" => "wanted" })

direct.publish("one", routing_key: "key", persistent: true, message_id: "m1", headers: { "n" => 1, "nested" => { "a" => [1, "b"] } })
topic.publish("two", routing_key: "a.b.c", content_type: "text/plain", timestamp: 1_700_000_000)
fanout.publish("three")
headers.publish("four", headers: { "kind" => "wanted" })
headers.publish("nobody's", headers: { "kind" => "other" })
puts "all confirmed: #{channel.wait_for_confirms}"
puts "depths: #{named.message_count} #{own.message_count}"

# basic.get, an acknowledgement, a requeue.
info, properties, body = named.pop(manual_ack: true)
puts "got #{body} #{info.redelivered?} #{info.routing_key} #{properties.message_id} #{properties.headers}"
channel.nack(info.delivery_tag, false, true)
info, _, body = named.pop(manual_ack: true)
puts "got again #{body} #{info.redelivered?}"
channel.ack(info.delivery_tag)
_, properties, body = named.pop
puts "got #{body} #{properties.content_type} #{properties.timestamp.to_i}"
puts "empty: #{named.pop.inspect}"

# A consumer that is cancelled by the broker when its queue is deleted.
taken = Queue.new
cancelled = Queue.new
consumer = Bunny::Consumer.new(channel, own, "bunny-consumer", false)
consumer.on_delivery { |delivery, _, text| taken << text; channel.ack(delivery.delivery_tag) }
consumer.on_cancellation { cancelled << true }
own.subscribe_with(consumer)
puts "consumed #{taken.pop} #{taken.pop}"
own.delete
puts "cancelled by the broker: #{cancelled.pop}"

# A mandatory message without a queue comes back.
returned = Queue.new
direct.on_return { |reason, _, text| returned << [reason.reply_code, reason.reply_text, text] }
direct.publish("lost", routing_key: "nowhere", mandatory: true)
puts "returned #{returned.pop.inspect}"

# A stream, read from its beginning.
stream = channel.queue("bunny.stream", durable: true, arguments: { "x-queue-type" => "stream" })
3.times { |number| channel.default_exchange.publish(number.to_s, routing_key: "bunny.stream", persistent: true) }
channel.wait_for_confirms
offsets = Queue.new
reader = connection.create_channel
reader.prefetch(5)
reading = reader.queue("bunny.stream", durable: true, arguments: { "x-queue-type" => "stream" })
reading.subscribe(manual_ack: true, arguments: { "x-stream-offset" => "first" }) do |delivery, read, text|
  offsets << [read.headers["x-stream-offset"], text]
  reader.ack(delivery.delivery_tag)
end
puts "stream #{offsets.pop.inspect} #{offsets.pop.inspect} #{offsets.pop.inspect}"
reader.close

# A transaction, and refusals.
transactional = connection.create_channel
transactional.tx_select
transactional.default_exchange.publish("rolled back", routing_key: "bunny.named")
transactional.tx_rollback
transactional.default_exchange.publish("committed", routing_key: "bunny.named")
transactional.tx_commit
puts "after the transaction: #{named.message_count}"
[
  ["another type", -> (other) { other.fanout("bunny.direct") }],
  ["another argument", -> (other) { other.queue("bunny.named", durable: true) }],
  ["a missing queue", -> (other) { other.queue("bunny.missing", passive: true) }],
].each do |what, attempt|
  other = connection.create_channel
  begin
    attempt.call(other)
    puts "#{what}: accepted"
  rescue Bunny::ChannelLevelException => error
    puts "#{what}: #{error.class}"
  end
end

named.delete
stream.delete
[direct, topic, fanout, headers].each(&:delete)
connection.close
puts "closed: #{connection.closed?}"
