"""What Redis does in one step for the shelf (shelf.py says what the keys are). In Lua, run by EVALSHA.

Which KEYS and ARGV each gets says whoever runs it there.
"""

from __future__ import annotations

LEASE_S = 10
"""So long a COMMIT may take before others no longer wait for its outcome."""

LOCK_MS = 5_000
"""So long one process loads a key for all, if it does not end before."""

TAG_TTL_S = 86_400
TURN_S = 60
"""Floors are remembered one by one for this long at least."""

NOTE = f"""
local base = redis.call('HGET', KEYS[1], 'base')
if not base then return false end
local now = tonumber(redis.call('TIME')[1])
local noted = {{}}
for i = 7, #KEYS do
    local name = ARGV[i - 5]
    local kept, doubt = redis.call('GET', KEYS[i]), redis.call('HGET', KEYS[4], name)
    if doubt then
        kept = tonumber(string.match(doubt, '%d+$')) < now and 'due' or ''
    elseif not kept then
        local floor = base
        for source = 2, 3 do
            local known = redis.call('HGET', KEYS[source], name)
            if known and known > floor then floor = known end
        end
        kept = floor .. string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'version', 1))
        if string.match(name, '^%*%d*$') then redis.call('SET', KEYS[i], kept)
        else redis.call('SET', KEYS[i], kept, 'EX', {TAG_TTL_S}) end
    end
    noted[i - 6] = kept
end
if ARGV[1] == '' then return {{0, false, noted}} end
local first = redis.call('SET', KEYS[5], ARGV[1], 'NX', 'PX', {LOCK_MS})
return {{first and 1 or 0, redis.call('GET', KEYS[6]), noted}}
"""
BEGIN = """
local now = redis.call('TIME')
redis.call('HSETNX', KEYS[1], 'version', string.format('%s%06d', now[1], now[2]))
redis.call('HSETNX', KEYS[1], 'max', ARGV[1])
redis.call('HSETNX', KEYS[1], 'next', ARGV[1])
redis.call('HSETNX', KEYS[1], 'turned', now[1])
return redis.call('HSETNX', KEYS[1], 'base', ARGV[1])
"""
KEEP = """
local good = 1
for i = 4, #KEYS do
    local kept = redis.call('GET', KEYS[i])
    if not kept or string.sub(kept, 25) ~= ARGV[i + 2] then
        good = 0
        break
    end
end
if good == 1 and ARGV[3] ~= '' then redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
if redis.call('DEL', KEYS[3]) == 1 then redis.call('PUBLISH', ARGV[1], cmsgpack.pack({'kept', ARGV[5]})) end
return good
"""
ANNOUNCE = f"""
local told = {{'gone'}}
local now = tonumber(redis.call('TIME')[1])
for i = 2, #KEYS do told[i] = ARGV[i] end
redis.call('PUBLISH', ARGV[1], cmsgpack.pack(told))
for i = 2, #KEYS do
    local name = ARGV[i]
    local doubt = redis.call('HGET', KEYS[1], name)
    local count = doubt and tonumber(string.match(doubt, '^%d+')) or 0
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[1], name, string.format('%.0f %.0f', count + 1, now + {LEASE_S}))
end
return 1
"""
SETTLE = f"""
local told, position, how = {{'gone'}}, ARGV[2], ARGV[3]
local now = tonumber(redis.call('TIME')[1])
for i = 5, #KEYS do
    local name = ARGV[i - 1]
    local doubt = redis.call('HGET', KEYS[4], name)
    if how == 'due' and doubt and tonumber(string.match(doubt, '%d+$')) >= now then
        doubt = nil
    else
        if doubt and (how == 'due' or (how == 'announced' and tonumber(string.match(doubt, '^%d+')) < 2)) then
            redis.call('HDEL', KEYS[4], name)
        elseif doubt and how == 'announced' then
            local count, ends = string.match(doubt, '^(%d+) (%d+)$')
            redis.call('HSET', KEYS[4], name, string.format('%.0f %s', tonumber(count) - 1, ends))
        end
        if how == 'plain' or not doubt then
            redis.call('DEL', KEYS[i])
            told[#told + 1] = name
        end
        local known = redis.call('HGET', KEYS[2], name)
        if position ~= '' and (not known or known < position) then
            redis.call('HSET', KEYS[2], name, position)
        end
    end
end
local base, highest, next, turned = unpack(redis.call('HMGET', KEYS[1], 'base', 'max', 'next', 'turned'))
if base and position ~= '' then
    if position > highest then
        highest = position
        redis.call('HSET', KEYS[1], 'max', position)
    end
    if now - tonumber(turned) > {TURN_S} then
        redis.call('DEL', KEYS[3])
        if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
        redis.call('HSET', KEYS[1], 'base', next, 'next', highest, 'turned', now)
    end
end
if #told > 1 then redis.call('PUBLISH', ARGV[1], cmsgpack.pack(told)) end
return #told - 1
"""
FOLLOW = "return redis.call('HSET', KEYS[1], 'followed', ARGV[1])"
ALWAYS = "#!lua flags=allow-oom\n"
"""Also when there is no memory left: what is said about tags is little, and must not be lost. Values may."""

SCRIPTS = {
    "note": ALWAYS + NOTE,
    "begin": ALWAYS + BEGIN,
    "keep": KEEP,
    "announce": ALWAYS + ANNOUNCE,
    "settle": ALWAYS + SETTLE,
    "follow": ALWAYS + FOLLOW,
}
