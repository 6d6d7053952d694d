"""The Lua scripts of the inbox: each changes it in one atomic step. Which keys there are is said in `inbox`.

A script knows as `tickets_of_a_channel` how many tickets a channel may have: see `bound`.
"""

from typing import Final


def bound(script: str, tickets_of_a_channel: int) -> str:
    """Give a script that lets a channel have so many tickets at a time."""
    return f"local tickets_of_a_channel = {tickets_of_a_channel}{script}"


_FUNCTIONS: Final = """
local function beside(ready, name) return (string.gsub(ready, 'ready$', name)) end
-- A line's name begins with its channel's.
local function channel_of(name) return string.match(name, '^(.*):') or name end
local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
-- A ticket is owned while its stream entry is pending for this very worker.
local function owns(ready, group, ticket, worker)
  local pending = redis.call('XPENDING', ready, group, ticket, ticket, 1)
  return pending[1] ~= nil and pending[1][2] == worker
end
local function take_out(ready, group, ticket, name)
  redis.call('XACK', ready, group, ticket)
  redis.call('XDEL', ready, ticket)
  redis.call('SREM', beside(ready, 'out:') .. channel_of(name), ticket)
end
local function read(entry)
  local is_read, parts = pcall(cjson.decode, entry)
  if is_read and type(parts) == 'table' then return tostring(parts[1]), tostring(parts[2]) end
  return '', ''
end
local function unfinished(name, id) return name .. '|' .. id end
local function write(first)
  for i = first, #ARGV, 4 do
    if ARGV[i] == 'SET' then redis.call('SET', ARGV[i + 1], ARGV[i + 3], 'EX', ARGV[i + 2])
    else redis.call('EXPIRE', ARGV[i + 1], ARGV[i + 2]) end
  end
end
-- A ticket says whether its item was tried before: while it stood in line, or before it was given up and put back.
local function issue(ready, name, again)
  local entry = redis.call('LINDEX', beside(ready, 'line:') .. name, 0)
  if not entry then return end
  if redis.call('EXISTS', beside(ready, 'notes:') .. read(entry)) == 1 then again = '1' end
  local ticket = redis.call('XADD', ready, '*', 'line', name, 'entry', entry, 'again', again)
  redis.call('SADD', beside(ready, 'out:') .. channel_of(name), ticket)
end
local function has_room(ready, channel)
  local out = beside(ready, 'out:') .. channel
  while redis.call('SCARD', out) >= tickets_of_a_channel do
    -- A ticket that is lost holds no place. To look at one each time finds it soon enough.
    local ticket = redis.call('SRANDMEMBER', out)
    if #redis.call('XRANGE', ready, ticket, ticket) == 1 then return false end
    redis.call('SREM', out, ticket)
  end
  return true
end
local function admit(ready, channel)
  local turns = beside(ready, 'turns:') .. channel
  while redis.call('EXISTS', turns) == 1 and has_room(ready, channel) do
    local turn = redis.call('LPOP', turns)
    issue(ready, string.sub(turn, 2), string.sub(turn, 1, 1))
  end
end
-- A line holds an item, in whichever version.
local function has_item(line, id)
  for _, entry in ipairs(redis.call('LRANGE', line, 0, -1)) do
    if read(entry) == id then return true end
  end
  return false
end
-- The head of a line was changed since a ticket for it was made: `order` is what it was then.
local function is_revised(line, order)
  if order == '' then return false end
  local head = redis.call('LINDEX', line, 0)
  if not head then return false end
  local _, now = read(head)
  return now ~= order
end
-- A line waits for its channel's turn behind the channel's other lines, or before them where work is handed back.
local function hand_out(ready, name, again, is_first)
  local channel = channel_of(name)
  redis.call(is_first and 'LPUSH' or 'RPUSH', beside(ready, 'turns:') .. channel, again .. name)
  admit(ready, channel)
end
"""

# Shared by what puts items into a line.
_ENTER: Final = """
-- Quick messages may be delivered the wrong way round: all that wait behind the head are kept in their order.
local function enter(ready, line, name, entry, order, marks, seconds)
  for _, mark in ipairs(marks) do redis.call('SET', mark, '', 'EX', seconds) end
  redis.call('ZADD', beside(ready, 'unfinished'), 'NX', now_ms(), unfinished(name, read(entry)))
  local at = redis.call('RPUSH', line, entry) - 1
  if at == 0 then hand_out(ready, name, '0') end
  while at > 1 do
    local before = redis.call('LINDEX', line, at - 1)
    local _, order_before = read(before)
    if order_before <= order then break end
    redis.call('LSET', line, at, before)
    redis.call('LSET', line, at - 1, entry)
    at = at - 1
  end
end
"""

# KEYS: ready, line, thread, early, seen…
# ARGV: line name, entry, order, seen seconds, thread seconds (0: no thread), whether the thread must be known,
#       seconds that what comes early is kept, and how many of it
PUT = (
    _FUNCTIONS
    + _ENTER
    + """
local ready, line, thread, early = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function is_seen(marks)
  return #marks > 0 and redis.call('EXISTS', unpack(marks)) > 0
end

-- An edit may overtake its message, whose first delivery failed.
local function newest(entry, order, its_marks)
  local edited = its_marks[1] and redis.call('GET', its_marks[1] .. ':edited')
  if not edited then return entry, order end
  local _, its_order = read(edited)
  -- Sent again, that edit is none any more.
  redis.call('SET', its_marks[1] .. ':' .. its_order, '', 'EX', ARGV[4])
  return edited, its_order
end

local marks = {unpack(KEYS, 5)}
if ARGV[6] == '1' and redis.call('EXISTS', thread) == 0 then
  -- The question that it replies to may be on its way: Slack sends again what could not be taken in.
  redis.call('RPUSH', early, cjson.encode({ARGV[2], marks}))
  redis.call('LTRIM', early, -ARGV[8], -1)
  redis.call('EXPIRE', early, ARGV[7])
  return 'unknown_thread'
end
if is_seen(marks) then return 'duplicate' end
local is_new = ARGV[5] ~= '0' and redis.call('SET', thread, '', 'EX', ARGV[5], 'NX')
if ARGV[5] ~= '0' and not is_new then redis.call('EXPIRE', thread, ARGV[5]) end
local entry, order = newest(ARGV[2], ARGV[3], marks)
enter(ready, line, ARGV[1], entry, order, marks, ARGV[4])
if is_new then
  for _, kept in ipairs(redis.call('LRANGE', early, 0, -1)) do
    local its_entry, its_marks = unpack(cjson.decode(kept))
    local _, its_order = read(its_entry)
    if its_order > ARGV[3] and not is_seen(its_marks) then
      its_entry, its_order = newest(its_entry, its_order, its_marks)
      enter(ready, line, ARGV[1], its_entry, its_order, its_marks, ARGV[4])
    end
  end
  redis.call('DEL', early)
end
return 'accepted'
"""
)

# KEYS: ready, line, thread, notes, mark of the message, mark of this revision, latest, edited
# ARGV: line name, entry, order, item id, group, seen seconds, notes seconds, 1 if the message is gone,
#       1 if it is so old that its mark may have ended, name of the note, seconds that the latest order is known,
#       seconds that an edit waits for its message, 1 if only what is in line is changed
REVISE = (
    _FUNCTIONS
    + _ENTER
    + """
local ready, line, thread, notes, message, revision, latest, edited = unpack(KEYS)
local name, entry, order, id, group = unpack(ARGV)
local is_gone, is_old, is_only_in_line = ARGV[8] == '1', ARGV[9] == '1', ARGV[13] == '1'
-- A ticket that no worker has taken yet still carries the old words.
local function issue_anew()
  for _, ticket in ipairs(redis.call('SMEMBERS', beside(ready, 'out:') .. channel_of(name))) do
    local issued = redis.call('XRANGE', ready, ticket, ticket)[1]
    local _, its_line, _, _, _, again = unpack(issued and issued[2] or {})
    if its_line == name then
      local pending = redis.pcall('XPENDING', ready, group, ticket, ticket, 1)
      if pending.err or #pending == 0 then
        redis.call('XDEL', ready, ticket)
        redis.call('SREM', beside(ready, 'out:') .. channel_of(name), ticket)
        issue(ready, name, again)
      end
    end
  end
end
-- What was edited into a mention comes as a message of its own, too.
local function has_same_words(a, b)
  local function payload(entry) return cjson.decode(cjson.decode(entry)[3]) end
  local is_read, one, other = pcall(function() return payload(a), payload(b) end)
  if not is_read or type(one) ~= 'table' or type(other) ~= 'table' then return false end
  return one.text == other.text and one.is_deleted == other.is_deleted
end
local function mark() redis.call('SET', revision, '', 'EX', ARGV[6]) end
local function accept()
  mark()
  redis.call('SET', latest, order, 'EX', ARGV[11])
end

if redis.call('EXISTS', revision) == 1 then return 'duplicate' end
local known = redis.call('GET', latest)
if known and known >= order then return 'duplicate' end
for at, waiting in ipairs(redis.call('LRANGE', line, 0, -1)) do
  local its_id, its_order = read(waiting)
  if its_id == id then
    if its_order >= order then return 'duplicate' end
    if has_same_words(waiting, entry) then
      mark()
      return 'duplicate'
    end
    accept()
    redis.call('LSET', line, at - 1, entry)
    -- What was answered to the old words is nothing to the new ones.
    redis.call('HDEL', notes, 'answer')
    if at == 1 then issue_anew() end
    return 'revised'
  end
end
if redis.call('EXISTS', message) == 0 and not (is_gone and is_old) then
  -- If it is yet to be delivered, it is gone by then, or has these words.
  if is_gone then
    accept()
    redis.call('SET', message, '', 'EX', ARGV[6])
    return 'unknown_question'
  end
  local kept = redis.call('GET', edited)
  local _, kept_order = read(kept or '')
  if not kept or kept_order < order then redis.call('SET', edited, entry, 'EX', ARGV[12]) end
  return 'unknown_question'
end
if is_only_in_line then
  accept()
  return 'unknown_question'
end
if redis.call('EXISTS', thread) == 0 then return 'unknown_thread' end
redis.call('HSET', notes, ARGV[10], '1')
redis.call('EXPIRE', notes, ARGV[7])
accept()
enter(ready, line, name, entry, order, {}, ARGV[6])
return 'accepted'
"""
)

# KEYS: ready, line, notes, dead, journal
# ARGV: group, ticket, worker, line name, kind, reason (empty: done), notes as JSON, dead letters kept,
#       dead letters' age in ms, journal entry (empty: none), journal entries kept, order,
#       (SET or EXPIRE, key, seconds, value)…
# Returns 0: the ticket is another's, 1: done, 2: the item was revised.
FINISH = (
    _FUNCTIONS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
if is_revised(KEYS[2], ARGV[12]) then return 2 end
take_out(KEYS[1], ARGV[1], ARGV[2], ARGV[4])
local entry = redis.call('LPOP', KEYS[2])
if entry then redis.call('ZREM', beside(KEYS[1], 'unfinished'), unfinished(ARGV[4], read(entry))) end
redis.call('DEL', KEYS[3])
if ARGV[6] ~= '' and entry then
  redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[8], '*',
    'kind', ARGV[5], 'reason', ARGV[6], 'line', ARGV[4], 'entry', entry, 'notes', ARGV[7])
  redis.call('XTRIM', KEYS[4], 'MINID', string.format('%d', now_ms() - ARGV[9]))
end
if ARGV[10] ~= '' then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[11], '*', 'kind', ARGV[5], 'entry', ARGV[10])
end
write(13)
if redis.call('EXISTS', KEYS[2]) == 1 then
  hand_out(KEYS[1], ARGV[4], '0')
else
  admit(KEYS[1], channel_of(ARGV[4]))
end
return 1
"""
)

# KEYS: ready, notes, later
# ARGV: group, ticket, worker, line name, wait in ms, 1 if it counts as a failure, notes seconds
RETRY = (
    _FUNCTIONS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
take_out(KEYS[1], ARGV[1], ARGV[2], ARGV[4])
if ARGV[6] == '1' then
  redis.call('HINCRBY', KEYS[2], 'failures', 1)
  redis.call('EXPIRE', KEYS[2], ARGV[7])
end
if ARGV[5] == '0' then
  hand_out(KEYS[1], ARGV[4], '1', true)
else
  redis.call('ZADD', KEYS[3], now_ms() + ARGV[5], ARGV[4])
  admit(KEYS[1], channel_of(ARGV[4]))
end
return 1
"""
)

# KEYS: ready, notes, line
# ARGV: group, ticket, worker, notes seconds, number of notes, order, (name, value)…,
#       (SET or EXPIRE, key, seconds, value)…
# Returns as FINISH does.
REMEMBER = (
    _FUNCTIONS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
if is_revised(KEYS[3], ARGV[6]) then return 2 end
local writes = 7 + 2 * ARGV[5]
for i = 7, writes - 1, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[2], ARGV[4])
write(writes)
return 1
"""
)

# KEYS: ready, notes   ARGV: group, ticket, worker, notes seconds   The death of the one before, once it had begun.
NOTE_DEATH = (
    _FUNCTIONS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
-- Asked again because the reply was lost, it is the same death.
if redis.call('HDEL', KEYS[2], 'begun') == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], 'deaths', 1)
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""
)

# KEYS: ready   ARGV: group, worker, ticket…   The owned ones' lease starts anew; returns those.
RENEW = (
    _FUNCTIONS
    + """
local kept = {}
for i = 3, #ARGV do
  if owns(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept[#kept + 1] = ARGV[i]
  end
end
return kept
"""
)

# KEYS: line…   ARGV: order of the item that each line had at its head   Returns the numbers of those revised since.
REVISED = (
    _FUNCTIONS
    + """
local found = {}
for number, line in ipairs(KEYS) do
  if is_revised(line, ARGV[number]) then found[#found + 1] = number end
end
return found
"""
)

# KEYS: ready, later   Lines whose wait is over get their ticket.
PROMOTE = (
    _FUNCTIONS
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms(), 'LIMIT', 0, 1000)
for _, name in ipairs(due) do
  redis.call('ZREM', KEYS[2], name)
  hand_out(KEYS[1], name, '1')
end
return #due
"""
)

# KEYS: ready   ARGV: group, worker   All that the worker still holds is handed back.
LEAVE = (
    _FUNCTIONS
    + """
local count = 0
repeat
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])
  for _, held in ipairs(pending) do
    local entry = redis.call('XRANGE', KEYS[1], held[1], held[1])[1]
    local name = entry and entry[2][2] or ''
    take_out(KEYS[1], ARGV[1], held[1], name)
    if entry then hand_out(KEYS[1], name, '1', true) end
  end
  count = count + #pending
until #pending == 0
-- Whatever the consumer still held would be lost with it.
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return count
"""
)

# KEYS: dead, ready, line, notes, latest   ARGV: dead letter, line name, entry, notes seconds, (name, value)…
# A dead letter whose item was revised since, or waits in its line again, is only dropped.
REVIVE = (
    _FUNCTIONS
    + """
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local id, order = read(ARGV[3])
local latest = redis.call('GET', KEYS[5])
if (latest and latest > order) or has_item(KEYS[3], id) then return 0 end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('ZADD', beside(KEYS[2], 'unfinished'), 'NX', now_ms(), unfinished(ARGV[2], id))
if redis.call('RPUSH', KEYS[3], ARGV[3]) == 1 then hand_out(KEYS[2], ARGV[2], '1') end
return 1
"""
)

# KEYS: ready   ARGV: group
# The group, where it is missing. If tickets outlived it, nobody knows which were taken: all were tried, perhaps.
OPEN = (
    _FUNCTIONS
    + """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 0 end
  return made
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  local name = entry[2][2]
  take_out(KEYS[1], ARGV[1], entry[1], name)
  hand_out(KEYS[1], name, '1', true)
end
return 1
"""
)

# KEYS: ready   ARGV: group, idle ms   Workers that were killed and hold nothing any more are signed off.
SIGN_OFF = """
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
  if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    gone = gone + 1
  end
end
return gone
"""

# KEYS: ready, later   ARGV: group
# Returns how many lines have a ticket and how many wait to be tried again, how many items are unfinished, and in ms the
# age of the oldest of those and of the oldest ticket that nobody has taken (0: there is none).
BACKLOG = (
    _FUNCTIONS
    + """
local all = beside(KEYS[1], 'unfinished')
-- A version that knows nothing of it may have finished the oldest ones.
for _, member in ipairs(redis.call('ZRANGE', all, 0, 99)) do
  local name, id = string.match(member, '^(.*)|(.*)$')
  if name and has_item(beside(KEYS[1], 'line:') .. name, id) then break end
  redis.call('ZREM', all, member)
end
local now, untaken = now_ms(), 0
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
local last = '-'
for _, group in ipairs(groups.err and {} or groups) do
  local fields = {}
  for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
  if fields['name'] == ARGV[1] then last = '(' .. fields['last-delivered-id'] end
end
local next_one = redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', 1)[1]
if next_one then untaken = math.max(0, now - string.match(next_one[1], '^%d+')) end
local oldest = redis.call('ZRANGE', all, 0, 0, 'WITHSCORES')[2]
local age = oldest and math.max(0, now - oldest) or 0
return {redis.call('XLEN', KEYS[1]), redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', all), age, untaken}
"""
)
