{{/* Values that do nothing in this mode, or beside the others, where somebody may rely on them. NOTES.txt names the
harmless ones. */}}

{{/* Every problem, as a JSON array. */}}
{{- define "dstack-admission.modeProblems" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- if eq $v.mode "standalone" -}}
{{- with include "dstack-admission.given" (dict "path" "server" "values" $v.server) | fromJsonArray -}}
{{- $problems = append $problems (printf "%s: only mode sidecar installs a dstack server, and this is mode standalone" (join ", " .)) -}}
{{- end -}}
{{- else -}}
{{- with include "dstack-admission.given" (dict "path" "standalone" "values" $v.standalone) | fromJsonArray -}}
{{- $problems = append $problems (printf "%s: only mode standalone takes reviews from elsewhere, and this is mode sidecar; see server.service for the dstack server's own Service" (join ", " .)) -}}
{{- end -}}
{{- if and $v.server.persistence.existingClaim (not $v.server.persistence.enabled) -}}
{{- $problems = append $problems "server.persistence.existingClaim: nothing is kept there while server.persistence.enabled is false" -}}
{{- end -}}
{{- end -}}
{{- if not $v.auth.existingSecret -}}
{{- if or (ne $v.auth.username "dstack") (ne $v.auth.passwordKey "password") -}}
{{- $problems = append $problems "auth.username, auth.passwordKey: nobody is asked for credentials without auth.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- if ne $v.certificates.source "certManager" -}}
{{- if $v.certificates.dnsNames -}}
{{- $problems = append $problems (printf "certificates.dnsNames: is for certificates.source certManager, which is %s" $v.certificates.source) -}}
{{- end -}}
{{- if $v.certificates.certManager.issuerRef.name -}}
{{- $problems = append $problems (printf "certificates.certManager.issuerRef: is for certificates.source certManager, which is %s" $v.certificates.source) -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* The paths of what is switched on, named or listed below {path, values}, as a JSON array. Sizes, ports and the like have
defaults, which cannot be told from what somebody wrote. */}}
{{- define "dstack-admission.given" -}}
{{- $given := list -}}
{{- $usual := list "server.image.repository" "server.image.tag" "server.image.pullPolicy" "server.adminToken.key" "server.database.key" "server.configKey" "server.persistence.enabled" "server.persistence.accessModes" "server.persistence.size" "server.persistence.keep" "server.service.port" "server.resources" "server.securityContext" "server.startupProbe" "server.livenessProbe" "server.readinessProbe" "standalone.service.port" "standalone.preStopSeconds" -}}
{{- range $key, $value := .values -}}
{{- $path := printf "%s.%s" $.path $key -}}
{{- if has $path $usual -}}
{{- else if kindIs "map" $value -}}
{{- $given = include "dstack-admission.given" (dict "path" $path "values" $value) | fromJsonArray | concat $given -}}
{{- else if and $value (not (and (eq $key "type") (eq $value "ClusterIP"))) -}}
{{- $given = append $given $path -}}
{{- end -}}
{{- end -}}
{{- toJson $given -}}
{{- end -}}
