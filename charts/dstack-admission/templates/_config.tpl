{{/* The configuration file: what the values say, and what only the chart can know. */}}

{{- define "dstack-admission.config" -}}
{{- $v := .Values -}}
{{- $port := int $v.metrics.port -}}
{{- $own := dict
  "apiVersion" "dstack-admission/v1"
  "kind" "AdmissionConfiguration"
  "listen" (eq $v.mode "sidecar" | ternary "127.0.0.1:8443" (printf "%s:8443" $v.admission.bindAddress))
  "admin" (printf "%s:%d" ($v.metrics.enabled | ternary $v.admission.bindAddress "127.0.0.1") $port)
  "stateDir" "/var/lib/dstack-admission" -}}
{{- if ne $v.certificates.source "made" -}}
{{- $_ := set $own "tls" (dict "certFile" "/etc/dstack-admission/tls/tls.crt" "keyFile" "/etc/dstack-admission/tls/tls.key") -}}
{{- end -}}
{{- if $v.auth.existingSecret -}}
{{- $_ := set $own "auth" (dict "basic" (dict "username" $v.auth.username "passwordFile" (printf "/etc/dstack-admission/auth/%s" $v.auth.passwordKey))) -}}
{{- end -}}
{{- $plugins := default list $v.config.plugins -}}
{{- if $v.canary.enabled -}}
{{- $plugins = append $plugins (include "dstack-admission.canary" . | fromYaml) -}}
{{- end -}}
{{- $_ := set $own "plugins" $plugins -}}
{{- dict "key" "config" "value" (merge $own (deepCopy $v.config)) | include "dstack-admission.yaml" -}}
{{- end -}}

{{/* {key, value} as YAML that says the same. Helm writes nothing at all where its library fails. */}}
{{- define "dstack-admission.yaml" -}}
{{- $text := toYaml .value -}}
{{- if or (ne (fromYaml $text | toJson) (toJson .value)) (regexMatch "[\\x{7f}\\x{85}\\x{2028}\\x{2029}]" $text) -}}
{{- fail (printf "\n\nThe values cannot be used:\n- %s: holds a character that YAML cannot carry, such as a control character or U+2028\n" .key) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* Denies the run of one name, so that `helm test` can see from the server's side that reviews arrive. */}}
{{- define "dstack-admission.canary" -}}
name: canary
use: canary
with:
  name: {{ .Values.canary.runName | quote }}
{{- end -}}
