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
{{- merge $own (deepCopy $v.config) | toYaml -}}
{{- end -}}

{{/* Denies the run of one name, so that `helm test` can see from the server's side that reviews arrive. */}}
{{- define "dstack-admission.canary" -}}
name: canary
use: canary
with:
  name: {{ .Values.canary.runName | quote }}
{{- end -}}
