-- JSON text from integers, words and ids, none of which needs escaping (docs/keys.md). A caller's document is never
-- decoded or encoded here: it is passed on as text.

-- '%d' because tostring() prints large integers such as instants as 1.76e+12.
local function int(number)
  return string.format('%d', number)
end

local function int_or_null(number)
  return number and int(number) or 'null'
end

local function quote(word)
  return '"' .. word .. '"'
end

local function quote_or_null(word)
  return word and quote(word) or 'null'
end

-- The action_on_timeout of most sessions: an object that has only a type. It is not stored.
local function type_only(word)
  return '{"type":"' .. word .. '"}'
end

-- An object of the named members, in this order. A member whose text is nil is left out.
local function object(names, texts)
  local parts = {}
  for i = 1, #names do
    local name = names[i]
    if texts[name] then parts[#parts + 1] = '"' .. name .. '":' .. texts[name] end
  end
  return '{' .. table.concat(parts, ',') .. '}'
end
