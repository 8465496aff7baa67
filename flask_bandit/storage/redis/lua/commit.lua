-- One commit: all is read, checked and worked out first, then written. A script that fails keeps
-- what it wrote before, so nothing may fail after the first write.
--
-- The rules are those of ledger.py: decisions, then rewards, then adjustments.
--
-- KEYS  counts, decisions, rewards, links, waiting, adjustments (hashes), log (a stream), times
--       (a hash, see log.py), arrays (a hash)
-- ARGV  how many decisions, rewards and adjustments there are, then for each
--         decision    id, slot, delta, details      slot: bandit US version US arm
--         reward      id, decision id, key, arm, delta, details      key: bandit US version
--         adjustment  id, key, delta
--       and then for each term
--         term        "d", "r" or "a" and the number of what it is of, arm US array, "outer" or "",
--                     numbers of 8 bytes
--       delta is "-" for none yet, or "+" and then US arm US sum US number for each sum; the
--       number of a sum of integers begins with "#". US is \31; no id holds control characters.
--       Terms are added with the delta, and are not kept.
-- Returns a flat list of what happened; the letters are explained in records.py.

local COUNTS, DECISIONS, REWARDS, LINKS, WAITING, ADJUSTMENTS, LOG, TIMES, ARRAYS = unpack(KEYS)
local US, RS = "\31", "\30"
local LARGEST = 9.2e18
local BLOCK = 1000 -- entries of the log, as in log.py
local MOST = 100 -- values of a call

local decisions, rewards, sums, weights, lists = {}, {}, {}, {}, { [LINKS] = {}, [WAITING] = {} }
local writes, adds, events, blocks, problem = {}, {}, {}, {}, nil
local terms, arrays = {}, {}

local function read(key, ids, found)
  for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    local values = redis.call("HMGET", key, unpack(ids, first, last))
    for i, value in ipairs(values) do
      found[ids[first + i - 1]] = value
    end
  end
  return found
end

local function event(...)
  for _, value in ipairs({ ... }) do
    events[#events + 1] = value
  end
end

-- A list of reward ids, kept as one text below the id of their decision.
local function list(key, decision)
  local known = lists[key][decision]
  if not known then
    known = {}
    local text = redis.call("HGET", key, decision)
    if text then
      for id in string.gmatch(text .. US, "([^\31]*)\31") do
        known[#known + 1] = id
      end
    end
    lists[key][decision] = known
  end
  return known
end

local function remove(from, id)
  for place, other in ipairs(from) do
    if other == id then
      return table.remove(from, place)
    end
  end
end

local function parse_reward(text)
  local number, decision, key, arm, counted, delta, details =
    string.match(text, "^([^\30]*)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30(.*)$")
  if not number then
    return nil
  end
  return { number = number, decision = decision, key = key, arm = arm,
    counted = counted == "1", delta = delta, details = details }
end

local function reward_text(r)
  return table.concat(
    { r.number, r.decision, r.key, r.arm, r.counted and "1" or "0", r.delta, r.details }, RS)
end

local function slot_of(decision)
  return string.match(decision, "^[^\30]*")
end

-- Work out the sums; whole numbers are left to HINCRBY, as a Lua number holds 53 bits of them.
local function add(key, delta)
  for arm, name, text in string.gmatch(delta, "\31([^\31]*)\31([^\31]*)\31([^\31]*)") do
    local field = key .. US .. arm .. US .. name
    local digits = string.match(text, "^#(%-?%d+)$")
    local number = tonumber(digits or text)
    local before = sums[field]
    if before == nil then
      before = redis.call("HGET", COUNTS, field) or "0"
      if digits and not string.match(before, "^%-?%d+$") then
        problem = "the stored sum " .. field .. " is not a whole number"
      end
      before = tonumber(before)
    end
    if not number or not before then
      problem = "the sum " .. field .. " is not a number"
      return
    end
    if digits then
      weights[field] = (weights[field] or math.abs(before)) + math.abs(number)
      adds[#adds + 1] = { field, digits }
      sums[field] = before
      if weights[field] > LARGEST then
        problem = "the sum " .. field .. " would be too large"
      end
    else
      sums[field] = before + number
      weights[field] = false
      if sums[field] - sums[field] ~= 0 then
        problem = "the sum " .. field .. " would be too large"
      end
    end
  end
end

local function numbers_of(text)
  local numbers = {}
  for at = 1, #text, 8 * MOST do
    local count = math.min((#text - at + 1) / 8, MOST)
    local some = { struct.unpack("<" .. string.rep("d", count), text, at) }
    for i = 1, count do
      numbers[#numbers + 1] = some[i]
    end
  end
  return numbers
end

local function text_of(numbers)
  local parts = {}
  for first = 1, #numbers, MOST do
    local last = math.min(first + MOST - 1, #numbers)
    local format = "<" .. string.rep("d", last - first + 1)
    parts[#parts + 1] = struct.pack(format, unpack(numbers, first, last))
  end
  return table.concat(parts)
end

-- The upper triangle of the product of a vector with itself, by rows.
local function product(vector)
  local numbers = {}
  for i = 1, #vector do
    for j = i, #vector do
      numbers[#numbers + 1] = vector[i] * vector[j]
    end
  end
  return numbers
end

-- Work out the arrays that terms, if there are any, are added to.
local function learn(key, more)
  for _, term in ipairs(more or {}) do
    local field = key .. US .. term.place
    local known = arrays[field]
    if not known then
      local text = redis.call("HGET", ARRAYS, field) or ""
      if #text % 8 ~= 0 then
        problem = "the array " .. field .. " is not of this library"
        return
      end
      known = numbers_of(text)
      arrays[field] = known
    end
    local added = numbers_of(term.vector)
    if term.outer then
      added = product(added)
    end
    if #known > 0 and #known ~= #added then
      problem = "the array " .. field .. " has " .. #known .. " numbers, and " .. #added
        .. " were to be added; raise the bandit's version"
      return
    end
    for i, number in ipairs(added) do
      known[i] = (known[i] or 0) + number
      if known[i] - known[i] ~= 0 then
        problem = "the array " .. field .. " would be too large"
      end
    end
  end
end

-- Note the time of a new decision, which stands first in its details, for its block of the log.
-- Returns the block if the decision opens it, so that the place of its first entry gets known.
local function note(place, details)
  local at = string.match(details, "^%[([^,]*),")
  local name = string.format("%d", math.floor(place / BLOCK))
  local block = blocks[name]
  if not block then
    local text = redis.call("HGET", TIMES, name)
    local first, count, least, most =
      string.match(text or "\0310\031" .. at .. "\031" .. at, "^([%d-]*)\31(%d+)\31([^\31]+)\31([^\31]+)$")
    block = { first = first, count = tonumber(count), least = least, most = most }
    blocks[name] = block
  end
  if not (block.count and tonumber(block.least) and tonumber(block.most) and tonumber(at)) then
    problem = "the times of block " .. name .. " are not of this library"
    return
  end
  block.count = block.count + 1
  if tonumber(at) < tonumber(block.least) then
    block.least = at
  end
  if tonumber(at) > tonumber(block.most) then
    block.most = at
  end
  return place % BLOCK == 0 and block or nil
end

local sent, given, items = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first_reward = 4 + 4 * sent
local first_item = first_reward + 6 * given
local first_term = first_item + 3 * items
if first_term > #ARGV + 1 or (#ARGV + 1 - first_term) % 4 ~= 0 then
  return redis.error_reply("BANDIT the commit has the wrong number of arguments")
end
for i = first_term, #ARGV, 4 do
  local of, place, kind, vector = unpack(ARGV, i, i + 3)
  terms[of] = terms[of] or {}
  table.insert(terms[of], { place = place, outer = kind == "outer", vector = vector })
end

-- Read what the commit concerns. Reading a key of another type is an error, so all that will be
-- written is read.
local ids, wanted = {}, {}
for i = 0, given - 1 do
  ids[#ids + 1] = ARGV[first_reward + 6 * i]
  wanted[#wanted + 1] = ARGV[first_reward + 6 * i + 1]
end
for i = 0, sent - 1 do
  local id = ARGV[4 + 4 * i]
  wanted[#wanted + 1] = id
  for _, reward in ipairs(list(WAITING, id)) do
    ids[#ids + 1] = reward
  end
end
for id, text in pairs(read(REWARDS, ids, {})) do
  if text then
    local stored = parse_reward(text)
    if not stored then
      return redis.error_reply("BANDIT the reward " .. id .. " is not of this library")
    end
    rewards[id] = stored
    wanted[#wanted + 1] = stored.decision
  end
end
read(DECISIONS, wanted, decisions)
local stored_rewards = redis.call("HLEN", REWARDS)
local length = redis.call("XLEN", LOG)
if length == 0 and stored_rewards == 0 then
  event("E")
end

local concerned, seen = {}, {}
local function concern(id)
  if not seen[id] then
    seen[id] = true
    concerned[#concerned + 1] = id
  end
end

for i = 0, sent - 1 do
  local id, slot, delta, details = unpack(ARGV, 4 + 4 * i, 7 + 4 * i)
  local stored = decisions[id]
  if stored then
    event("D", i, stored)
  else
    local value = slot .. RS .. delta .. RS .. details
    decisions[id] = value
    writes[#writes + 1] = { "HSET", DECISIONS, id, value }
    writes[#writes + 1] = { "XADD", LOG, "*", "d", id, opens = note(length, details) }
    length = length + 1
    local key = string.match(slot, "^[^\31]*\31[^\31]*")
    add(key, delta)
    learn(key, terms["d" .. i])
    event("N", i)
  end
  for _, reward in ipairs(list(WAITING, id)) do
    concern(reward)
  end
end

local changed, fresh, waits = {}, {}, {}
for i = 0, given - 1 do
  local id, decision, key, arm, delta, details =
    unpack(ARGV, first_reward + 6 * i, first_reward + 6 * i + 5)
  local stored = rewards[id]
  local more = terms["r" .. i]
  if more then
    -- Terms are added now or left out, with the delta that they belong to.
    local known = stored or { decision = decision, key = key }
    local made = decisions[known.decision]
    if not made or known.key .. US .. arm ~= slot_of(made) then
      delta, more = "-", nil
    end
  end
  if not stored then
    rewards[id] = { number = string.format("%d", stored_rewards), decision = decision, key = key,
      arm = arm, counted = false, delta = delta, details = details,
      terms = more, sending = i }
    stored_rewards = stored_rewards + 1
    local links = list(LINKS, decision)
    links[#links + 1] = id
    changed[id], fresh[id] = true, true
    event("R", i)
  elseif not stored.counted and delta ~= "-" then
    stored.arm, stored.delta, stored.terms, stored.sending = arm, delta, more, i
    changed[id] = true
  end
  concern(id)
end

for _, id in ipairs(concerned) do
  local reward = rewards[id]
  if reward and not reward.counted then
    local decision = decisions[reward.decision]
    if decision and reward.delta ~= "-" and reward.key .. US .. reward.arm == slot_of(decision) then
      reward.counted = true
      changed[id] = true
      if not fresh[id] then
        remove(list(WAITING, reward.decision), id)
        waits[reward.decision] = true
      end
      add(reward.key, reward.delta)
      learn(reward.key, reward.terms)
      event("C", id, reward_text(reward), reward.sending or -1)
    else
      if fresh[id] then
        local waiting = list(WAITING, reward.decision)
        waiting[#waiting + 1] = id
        waits[reward.decision] = true
      end
      if decision then
        event("U", id, reward_text(reward), reward.decision, decision)
      else
        event("P", id)
      end
    end
  end
end
for id in pairs(changed) do
  writes[#writes + 1] = { "HSET", REWARDS, id, reward_text(rewards[id]) }
end
for decision, links in pairs(lists[LINKS]) do
  writes[#writes + 1] = { "HSET", LINKS, decision, table.concat(links, US) }
end

if items > 0 then
  local places = {}
  for i = 0, items - 1 do
    places[#places + 1] = ARGV[first_item + 3 * i]
  end
  local known = read(ADJUSTMENTS, places, {})
  local number = redis.call("HLEN", ADJUSTMENTS)
  for i = 0, items - 1 do
    local id, key, delta = unpack(ARGV, first_item + 3 * i, first_item + 3 * i + 2)
    if not known[id] then
      known[id] = string.format("%d", number) .. RS .. key .. RS .. delta
      number = number + 1
      writes[#writes + 1] = { "HSET", ADJUSTMENTS, id, known[id] }
      add(key, delta)
      learn(key, terms["a" .. i])
      event("A", i)
    end
  end
end

for field, numbers in pairs(arrays) do
  writes[#writes + 1] = { "HSET", ARRAYS, field, text_of(numbers) }
end

if problem then
  return redis.error_reply("BANDIT " .. problem)
end

-- Nothing below can fail. The first write is one that a full memory refuses.
for _, write in ipairs(writes) do
  local answer = redis.call(unpack(write))
  if write.opens then
    write.opens.first = answer
  end
end
for name, block in pairs(blocks) do
  local count = string.format("%d", block.count)
  redis.call("HSET", TIMES, name, table.concat({ block.first, count, block.least, block.most }, US))
end
for decision in pairs(waits) do
  local waiting = lists[WAITING][decision]
  if #waiting == 0 then
    redis.call("HDEL", WAITING, decision)
  else
    redis.call("HSET", WAITING, decision, table.concat(waiting, US))
  end
end
for _, one in ipairs(adds) do
  redis.call("HINCRBY", COUNTS, one[1], one[2])
end
for field, weight in pairs(weights) do
  if not weight then
    redis.call("HSET", COUNTS, field, string.format("%.17g", sums[field]))
  end
end
return events
