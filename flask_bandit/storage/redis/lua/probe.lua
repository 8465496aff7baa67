-- Whether the commands of a commit may be used; nothing is left behind.
--
-- KEYS  a hash that does not exist
-- ARGV  another command that is asked for, if any

local key = KEYS[1]

-- The command that removes the traces comes first: if it is refused, there are none.
redis.call("HDEL", key, "1")
redis.call("HGET", key, "1")
redis.call("HMGET", key, "1")
redis.call("HLEN", key)
redis.call("XLEN", key)
redis.call("HSET", key, "1", "1")

-- The key is of the wrong type for all but the first, which is told only to who may use them.
local refused
local attempts = { { "HINCRBY", key, "1", "1" }, { "XADD", key, "*", "d", "1" } }
if ARGV[1] then
  attempts[3] = { ARGV[1], key, "1" }
end
for _, attempt in ipairs(attempts) do
  local answer = redis.pcall(unpack(attempt))
  if type(answer) == "table" and answer.err and not string.find(answer.err, "WRONGTYPE", 1, true) then
    refused = refused or answer
  end
end
redis.call("HDEL", key, "1")
return refused or "OK"
