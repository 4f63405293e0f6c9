#!/usr/bin/env bash
# Publishes a job with no Python and no AMQP library: one HTTP request to RabbitMQ's management API, by curl or by bash alone.
#
#   publish.sh http://guest:guest@localhost:15672 video.remind '{"video_id": "42", …}'
set -euo pipefail
management=$1 type=$2 payload=$3 prefix=${RMQJOBS_PREFIX:-rmqjobs} vhost=${4:-%2F}

quote() { # a JSON string
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

request="{\"routing_key\": $(quote "$type"), \"payload\": $(quote "$payload"), \"payload_encoding\": \"string\",
  \"properties\": {\"delivery_mode\": 2, \"content_type\": \"application/json\"}}"
path=/api/exchanges/$vhost/$prefix.jobs/publish

if command -v curl >/dev/null; then
    answer=$(curl -fsS -X POST -H 'content-type: application/json' -d "$request" "${management%/}$path")
else
    rest=${management#http://} credentials=${rest%@*} address=${rest##*@}
    address=${address%/}
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
    printf 'POST %s HTTP/1.0\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
        "$path" "$address" "$(printf %s "$credentials" | base64 -w0)" "$(printf %s "$request" | wc -c)" "$request" >&3
    answer=$(cat <&3)
fi
case $answer in
*'"routed":true'*) echo "published $type" ;;
*) echo "not published: $answer" >&2; exit 1 ;;
esac
