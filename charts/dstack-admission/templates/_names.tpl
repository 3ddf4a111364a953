{{/* Names, labels and images. */}}

{{- define "dstack-admission.name" -}}
{{- default .Chart.Name .Values.nameOverride | include "dstack-admission.part" -}}
{{- end -}}

{{/* The release's name, and the chart's unless that is part of it. Short enough for every suffix. */}}
{{- define "dstack-admission.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | include "dstack-admission.part" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $whole := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- include "dstack-admission.part" $whole -}}
{{- end -}}
{{- end -}}

{{/* Names of releases have dots, and an alias of the chart has anything; the name of a Service has neither. */}}
{{- define "dstack-admission.part" -}}
{{- regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trunc 48 | trimAll "-" -}}
{{- end -}}

{{/* A text as the value of a label: at most 63 characters, and a letter or digit at both ends. */}}
{{- define "dstack-admission.labelValue" -}}
{{- regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" (toString . | trunc 63) "" -}}
{{- end -}}

{{- define "dstack-admission.selector" -}}
app.kubernetes.io/name: {{ include "dstack-admission.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ eq .Values.mode "sidecar" | ternary "server" "admission" | quote }}
{{- end -}}

{{/* part-of is the name of the job in Prometheus, which alerts and dashboards go by: it is always the same. */}}
{{- define "dstack-admission.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | include "dstack-admission.labelValue")
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "dstack-admission"
  "app.kubernetes.io/version" (eq .Values.mode "sidecar" | ternary .Values.server.image.tag .Chart.AppVersion | include "dstack-admission.labelValue") -}}
{{- /* A digest says nothing of a version. */ -}}
{{- if eq .Values.mode "sidecar" | ternary .Values.server.image.digest .Values.image.digest -}}
{{- $_ := unset $own "app.kubernetes.io/version" -}}
{{- end -}}
{{- $selector := include "dstack-admission.selector" . | fromYaml -}}
{{- merge $selector $own (default dict .Values.commonLabels) | toYaml -}}
{{- end -}}

{{/* `metadata` of an object: {root, suffix, component?, annotations?, labels?} */}}
{{- define "dstack-admission.metadata" -}}
{{- $name := include "dstack-admission.fullname" .root -}}
name: {{ printf "%s%s" $name (default "" .suffix) | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- $labels := include "dstack-admission.labels" .root | fromYaml }}
  {{- with .component }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end }}
  {{- merge $labels (default dict .labels) | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "dstack-admission.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dstack-admission.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "dstack-admission.image" -}}
{{- with .Values.image -}}
{{- $tag := printf "%s%s" (default $.Chart.AppVersion .tag) (.python | ternary "-python" "") -}}
{{- .digest | empty | ternary (printf "%s:%s" .repository $tag) (printf "%s@%s" .repository .digest) -}}
{{- end -}}
{{- end -}}

{{- define "dstack-admission.serverImage" -}}
{{- with .Values.server.image -}}
{{- .digest | empty | ternary (printf "%s:%s" .repository (toString .tag)) (printf "%s@%s" .repository .digest) -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificate; empty where dstack-admission makes it. */}}
{{- define "dstack-admission.certificateSecret" -}}
{{- if eq .Values.certificates.source "secret" -}}
{{- .Values.certificates.existingSecret -}}
{{- else if eq .Values.certificates.source "certManager" -}}
{{- include "dstack-admission.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/* The Secret with the server's config.yml, if there is one. */}}
{{- define "dstack-admission.serverConfigSecret" -}}
{{- if .Values.server.existingConfigSecret -}}
{{- .Values.server.existingConfigSecret -}}
{{- else if .Values.server.config -}}
{{- include "dstack-admission.fullname" . }}-server-config
{{- end -}}
{{- end -}}

{{/* The names by which a server elsewhere calls, the best one first. */}}
{{- define "dstack-admission.dnsNames" -}}
{{- $service := include "dstack-admission.fullname" . -}}
{{- $names := list (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace) (printf "%s.%s" $service .Release.Namespace) $service -}}
{{- eq .Values.mode "sidecar" | ternary (list "localhost") $names | concat (default list .Values.certificates.dnsNames) | uniq | toJson -}}
{{- end -}}

{{/* What the dstack server is told. */}}
{{- define "dstack-admission.uri" -}}
{{- $path := default "" .Values.config.pathPrefix | trimAll "/" -}}
{{- $host := printf "%s.%s.svc:%d" (include "dstack-admission.fullname" .) .Release.Namespace (int .Values.standalone.service.port) -}}
{{- $host = eq .Values.mode "sidecar" | ternary "localhost:8443" $host -}}
{{- printf "https://%s%s" $host ($path | empty | ternary "" (printf "/%s" $path)) -}}
{{- end -}}
